internal import Reactor
internal import Settings
internal import Timing
internal import Wire

extension Network {
    /// Whether a ban of this network keeps an address out. A client behind a stateless translator is banned by its address
    /// as by its IPv4 address, since `ctl penalties` shows only the latter.
    func bans(_ address: WireAddress) -> Bool {
        if self.contains(address) { return true }
        let client = address.untranslated
        return client != address && self.contains(client)
    }
}

/// Networks that the operator keeps out, agents and visitors alike, until he takes it back or the gateway stops.
struct BanList: Sendable {
    /// Each connection is compared with all of them.
    static let maxCount = 1_024

    struct Ban: Sendable {
        let network: Network
        /// Nil: for good.
        let until: Milliseconds?
    }

    private(set) var bans: [Ban] = []

    /// False when there are as many as there may be. A ban of the same network is replaced.
    mutating func add(_ network: Network, until: Milliseconds?) -> Bool {
        self.bans.removeAll { $0.network == network }
        guard self.bans.count < Self.maxCount else { return false }
        self.bans.append(Ban(network: network, until: until))
        return true
    }

    /// False when there is no such ban.
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

    /// False when none has expired. Call it about once a second.
    mutating func forgetExpired(now: Milliseconds) -> Bool {
        let count = self.bans.count
        self.bans.removeAll { ban in ban.until.map { $0 <= now } ?? false }
        return self.bans.count < count
    }
}
