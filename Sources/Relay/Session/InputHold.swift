internal import Reactor
internal import Timing

/// The time in which a link's socket is not read, as one of its streams is too slow for what comes.
final class InputHold {
    /// Between two looks at the streams that keep the link waiting.
    private static let lookMilliseconds: Milliseconds = 100

    private let timer: LoopTimer
    private var isHeld = false

    /// - Parameter look: called again and again while the link waits.
    init(loop: EventLoop, _ look: @escaping () -> Void) {
        self.timer = LoopTimer(loop: loop, look)
    }

    /// False when it has begun already.
    func begin() -> Bool {
        guard !self.isHeld else { return false }
        self.isHeld = true
        self.timer.start(after: Self.lookMilliseconds, repeating: Self.lookMilliseconds)
        return true
    }

    /// False when it had not begun.
    func end() -> Bool {
        guard self.isHeld else { return false }
        self.isHeld = false
        self.timer.stop()
        return true
    }

    func close() { self.timer.close() }
}
