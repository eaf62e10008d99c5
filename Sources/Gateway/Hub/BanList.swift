internal import Reactor
internal import Settings
internal import Timing
internal import Wire

extension Network {
    /// Whether a ban of this network applies to an address. An address made by a stateless IPv4/IPv6 translator also
    /// matches the IPv4 address in it, because `ctl penalties` shows only that one.
    func bans(_ address: WireAddress) -> Bool {
        if self.contains(address) { return true }
        let client = address.untranslated
        return client != address && self.contains(client)
    }
}

/// Networks banned by the operator, for agents and visitors. Bans end when they expire, are removed, or the gateway
/// stops.
struct BanList: Sendable {
    /// Every new connection is compared with the whole list.
    static let maxCount = 1_024

    struct Ban: Sendable {
        let network: Network
        /// On the loop's clock; nil for a permanent ban.
        let until: Milliseconds?
    }

    private(set) var bans: [Ban] = []

    /// Returns false if the list is full. Replaces an existing ban of the same network.
    mutating func add(_ network: Network, until: Milliseconds?) -> Bool {
        self.bans.removeAll { $0.network == network }
        guard self.bans.count < Self.maxCount else { return false }
        self.bans.append(Ban(network: network, until: until))
        return true
    }

    /// Returns false if the network is not banned.
    mutating func remove(_ network: Network) -> Bool {
        let count = self.bans.count
        self.bans.removeAll { $0.network == network }
        return self.bans.count < count
    }

    func contains(_ address: SocketAddress) -> Bool {
        guard !self.bans.isEmpty else { return false }
        let address = WireAddress(address)
        return self.bans.contains { $0.network.bans(address) }
    }

    /// Drops expired bans; returns false if there were none. Call about once a second.
    mutating func forgetExpired(now: Milliseconds) -> Bool {
        let count = self.bans.count
        self.bans.removeAll { ban in ban.until.map { $0 <= now } ?? false }
        return self.bans.count < count
    }
}
