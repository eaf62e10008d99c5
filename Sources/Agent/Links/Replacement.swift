internal import Reactor
internal import Wire

/// The attempt to give the current link of an agent another connection.
struct Replacement {
    /// The time for the first attempt, in milliseconds. Each further one may take twice as long, because a network that
    /// has come back must not wait for an attempt that was swallowed before.
    private static let firstPatience: UInt64 = 4_000
    private static let maxDoublings = 4

    /// The connection on which the link may continue, and the login in case it cannot. Without a login the gateway's key
    /// was refused.
    var successor: (session: GatewaySession, login: Login?)?
    /// When the link lost its connection; nil while it has one.
    var detachedAt: UInt64?
    /// Whether a connection is being made beside that of the link, which is stuck.
    var isBeside = false
    /// Attempts since the last connection of the link that worked.
    var attempts = 0
    /// Fires when the connection of the link counts as stuck, unless it moves before.
    var stuckTimer: LoopTimer?

    /// How long the next attempt may take, in milliseconds.
    mutating func nextPatience() -> UInt64 {
        defer { self.attempts += 1 }
        return Self.firstPatience << UInt64(min(self.attempts, Self.maxDoublings))
    }
}
