/// Runs an action immediately on request, then at most once per interval. Requests during the interval are combined
/// into one run at its end.
package final class Throttle {
    private let milliseconds: UInt64
    private let body: () -> Void
    private var timer: LoopTimer?
    private var isPausing = false
    private var isDue = false

    /// - Parameter milliseconds: the interval.
    package init(loop: EventLoop, milliseconds: UInt64, _ body: @escaping () -> Void) {
        self.milliseconds = milliseconds
        self.body = body
        self.timer = LoopTimer(loop: loop) { [unowned self] in self.pauseEnded() }
    }

    package func request() {
        guard let timer = self.timer else { return }
        guard !self.isPausing else { return self.isDue = true }
        self.isPausing = true
        timer.start(after: self.milliseconds)
        self.body()
    }

    private func pauseEnded() {
        self.isPausing = false
        guard self.isDue else { return }
        self.isDue = false
        self.request()
    }

    /// Drops a pending run. Later requests do nothing.
    package func close() {
        self.timer?.close()
        self.timer = nil
    }
}
