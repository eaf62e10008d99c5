package import Timing

/// How often one agent may register names, by all its links. A reconnect does not give it more.
package struct RegistrationLimits: Equatable, Sendable {
    /// Registrations at once.
    package let burst: Int
    /// Registrations in a second after that.
    package let perSecond: Int

    /// An honest agent registers all its names when it starts and each time that it reconnects. It may do so four times
    /// at once, and after that every 15 s: eight times in any minute.
    ///
    /// - Parameter namesPerAgent: that one identity can hold at once.
    package init(namesPerAgent: Int) {
        self.burst = 4 * namesPerAgent
        self.perSecond = max(namesPerAgent / 15, 1)
    }
}

/// A token bucket of registrations for each agent, or for its source where an agent can have as many identities as it
/// likes. It outlives the links, until it is full again.
package struct RegistrationGate: Sendable {
    /// Payers at once, four times the agents of a gateway. At about 150 bytes each they take 600 KB.
    package static let maxPayers = 4_096

    private let limits: RegistrationLimits
    private var buckets: [String: TokenBucket] = [:]

    package init(limits: RegistrationLimits) { self.limits = limits }

    package var count: Int { self.buckets.count }

    /// Whether an agent may register a name now; if so, that counts.
    ///
    /// - Parameters:
    ///   - forgotten: gets the number of other agents that had to be forgotten, if any.
    ///   - limits: of a payer that may have more than others; nil for the usual ones.
    package mutating func take(
        _ payer: String, limits: RegistrationLimits? = nil, now: Milliseconds, forgotten: (Int) -> Void = { _ in }
    ) -> Bool {
        let limits = limits ?? self.limits
        if self.buckets[payer] == nil, self.count >= Self.maxPayers { forgotten(self.makeRoom(now: now)) }
        return self.buckets[
            payer, default: TokenBucket(burst: limits.burst, perSecond: limits.perSecond, now: now)
        ].take(now: now)
    }

    /// Forgets buckets that are full again; call it about once a second.
    package mutating func forgetFull(now: Milliseconds) {
        self.buckets = self.buckets.filter { !$0.value.isFull(now: now) }
    }

    /// Forgets half of the payers, those that have used least, so that it happens seldom.
    private mutating func makeRoom(now: Milliseconds) -> Int {
        let ordered = self.buckets.sorted { $0.value.tokens(now: now) < $1.value.tokens(now: now) }
        self.buckets = Dictionary(
            uniqueKeysWithValues: ordered.prefix(Self.maxPayers / 2).map { ($0.key, $0.value) })
        return ordered.count - self.count
    }
}
