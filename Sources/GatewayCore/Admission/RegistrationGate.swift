package import Timing

/// The rate at which one agent may register names, over all its links. Reconnecting does not reset it.
package struct RegistrationLimits: Equatable, Sendable {
    /// Registrations at once.
    package let burst: Int
    /// Registrations per second after the burst.
    package let perSecond: Int

    /// An agent registers all its names at start and after each reconnect. Four times at once are allowed, then once
    /// every 15 s: eight times in any minute.
    ///
    /// - Parameter namesPerAgent: the most names that one identity may hold.
    package init(namesPerAgent: Int) {
        self.burst = 4 * namesPerAgent
        self.perSecond = max(namesPerAgent / 15, 1)
    }
}

/// A token bucket of registrations per payer (see ``GatewayMachine/Login/payer``). Buckets outlive links: they are kept
/// until they are full again.
package struct RegistrationGate: Sendable {
    /// Four times the default number of agents. At about 150 bytes each, the buckets take 600 KB.
    package static let maxPayers = 4_096

    private let limits: RegistrationLimits
    private var buckets: [String: TokenBucket] = [:]

    package init(limits: RegistrationLimits) { self.limits = limits }

    package var count: Int { self.buckets.count }

    /// Takes a token for one registration; returns false if the payer has none left.
    ///
    /// - Parameters:
    ///   - forgotten: called with the number of buckets that were dropped to make room, only if there were any.
    ///   - limits: of a payer that may hold more names than others; nil for the defaults.
    package mutating func take(
        _ payer: String, limits: RegistrationLimits? = nil, now: Milliseconds, forgotten: (Int) -> Void = { _ in }
    ) -> Bool {
        let limits = limits ?? self.limits
        if self.buckets[payer] == nil, self.count >= Self.maxPayers { forgotten(self.makeRoom(now: now)) }
        return self.buckets[
            payer, default: TokenBucket(burst: limits.burst, perSecond: limits.perSecond, now: now)
        ].take(now: now)
    }

    /// Drops buckets that are full again. Call about once a second.
    package mutating func forgetFull(now: Milliseconds) {
        self.buckets = self.buckets.filter { !$0.value.isFull(now: now) }
    }

    /// Drops the half with the most tokens left, the payers that registered least. Half at once, so that it is rare.
    private mutating func makeRoom(now: Milliseconds) -> Int {
        let ordered = self.buckets.sorted { $0.value.tokens(now: now) < $1.value.tokens(now: now) }
        self.buckets = Dictionary(
            uniqueKeysWithValues: ordered.prefix(Self.maxPayers / 2).map { ($0.key, $0.value) })
        return ordered.count - self.count
    }
}
