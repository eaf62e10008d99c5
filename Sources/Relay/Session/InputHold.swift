internal import Reactor
internal import Timing

/// Tracks whether a link's socket is not read because one of its streams is too slow.
final class InputHold {
    /// Interval between two checks of the streams that hold up the link.
    private static let lookMilliseconds: Milliseconds = 100

    private let timer: LoopTimer
    private var isHeld = false

    /// - Parameter look: called periodically while the hold lasts.
    init(loop: EventLoop, _ look: @escaping () -> Void) {
        self.timer = LoopTimer(loop: loop, look)
    }

    /// Begins the hold; returns false if it has already begun.
    func begin() -> Bool {
        guard !self.isHeld else { return false }
        self.isHeld = true
        self.timer.start(after: Self.lookMilliseconds, repeating: Self.lookMilliseconds)
        return true
    }

    /// Ends the hold; returns false if it had not begun.
    func end() -> Bool {
        guard self.isHeld else { return false }
        self.isHeld = false
        self.timer.stop()
        return true
    }

    func close() { self.timer.close() }
}
