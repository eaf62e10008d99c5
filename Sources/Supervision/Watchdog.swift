package import Reactor

/// Pings the service manager's watchdog while the event loop runs and the health check succeeds.
package final class Watchdog {
    private let timer: LoopTimer

    /// Pings per watchdog timeout, so that two may be late.
    private static let pingsPerInterval: UInt64 = 3

    /// - Parameters:
    ///   - microseconds: the manager's watchdog timeout (WATCHDOG_USEC).
    ///   - check: a cheap health check.
    ///   - ping: sends the ping.
    package init(
        loop: EventLoop, microseconds: UInt64, check: @escaping () -> Bool, ping: @escaping () -> Void
    ) {
        // The timer alone must not keep the loop alive.
        self.timer = LoopTimer(loop: loop, keepsLoopAlive: false) { if check() { ping() } }
        let pause = Self.pause(microseconds: microseconds)
        self.timer.start(after: pause, repeating: pause)
    }

    /// Milliseconds between two pings.
    package static func pause(microseconds: UInt64) -> UInt64 { max(1, microseconds / 1_000 / self.pingsPerInterval) }

    package func close() { self.timer.close() }
}
