internal import Reactor
internal import Wire

/// The attempt to give the current link of an agent another connection.
struct Replacement {
    /// Why another connection is needed.
    enum Reason {
        /// The connection of the link works.
        case none
        /// It is stuck, and another one is made beside it.
        case stuck
        /// It has none.
        case lost
    }

    /// The time for the first attempt, in milliseconds. Each further one may take twice as long, because a network that
    /// has come back must not wait for an attempt that was swallowed before.
    private static let firstPatience: UInt64 = 4_000
    private static let maxDoublings = 4

    /// The connection on which the link may continue, and the login in case it cannot. Without a login the gateway's key
    /// was refused.
    var successor: (session: GatewaySession, login: Login?)?
    var reason = Reason.none
    /// Attempts since the last connection of the link that worked.
    var attempts = 0
    /// Fires when the connection of the link counts as stuck, unless it moves before.
    var stuckTimer: LoopTimer?

    /// When the connection was last checked. A late check means that this program was held up, and that the gateway's
    /// bytes may still be unread.
    private var lookedAt: UInt64?
    private static let lateLook: UInt64 = 2_000
    /// Until when the connection does not count as stuck, because this program was held up.
    private var graceUntil: UInt64 = 0
    private static let grace: UInt64 = 2_000

    /// When the link counts as stuck, according to its machine and to the last checks.
    mutating func stuckAt(_ stuckAt: UInt64, now: UInt64) -> UInt64 {
        if let last = self.lookedAt, now >= last + Self.lateLook { self.graceUntil = now + Self.grace }
        self.lookedAt = now
        return max(stuckAt, self.graceUntil)
    }

    /// The link has a connection that works.
    mutating func ended() {
        self.reason = .none
        self.attempts = 0
    }

    /// How long the next attempt may take, in milliseconds.
    mutating func nextPatience() -> UInt64 {
        defer { self.attempts += 1 }
        return Self.firstPatience << UInt64(min(self.attempts, Self.maxDoublings))
    }
}
