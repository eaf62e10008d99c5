package import Reactor

/// Gives signs of life from the loop: while it turns, and its owner finds itself well.
package final class Watchdog {
    private let timer: LoopTimer

    /// Signs of life in the time that the manager waits for one: two may be late.
    private static let pingsPerInterval: UInt64 = 3

    /// - Parameters:
    ///   - microseconds: how long the manager waits (WATCHDOG_USEC).
    ///   - check: a cheap look at whether the program does its work.
    ///   - ping: sends the sign of life.
    package init(
        loop: EventLoop, microseconds: UInt64, check: @escaping () -> Bool, ping: @escaping () -> Void
    ) {
        // It must not keep a loop going that has nothing else to do.
        self.timer = LoopTimer(loop: loop, keepsLoopAlive: false) { if check() { ping() } }
        let pause = Self.pause(microseconds: microseconds)
        self.timer.start(after: pause, repeating: pause)
    }

    /// Milliseconds from one sign of life to the next.
    package static func pause(microseconds: UInt64) -> UInt64 { max(1, microseconds / 1_000 / self.pingsPerInterval) }

    package func close() { self.timer.close() }
}
