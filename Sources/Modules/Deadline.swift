package import Reactor

/// The time limit of one request or action of a module, in milliseconds.
package let moduleDeadline: UInt64 = 10_000

/// Runs one request or action of a module with a deadline. The first of answer, deadline and cancellation wins; later
/// ones are ignored.
///
/// The caller must keep the operation: `completion` is not called after it was released.
package final class DeadlinedOperation<Answer>: Cancellable {
    private var completion: ((Answer) -> Void)?
    private var work: (any Cancellable)?
    private var timer: LoopTimer?

    /// - Parameters:
    ///   - milliseconds: time until the deadline.
    ///   - late: passed to `completion` when the deadline passes.
    ///   - start: begins the work; it may call its completion immediately.
    package init(
        loop: EventLoop, milliseconds: UInt64, late: Answer,
        start: (_ completion: @escaping (Answer) -> Void) -> (any Cancellable)?,
        completion: @escaping (Answer) -> Void
    ) {
        self.completion = completion
        let work = start { [weak self] answer in self?.finish(answer) }
        guard self.completion != nil else { return }
        self.work = work
        let timer = LoopTimer(loop: loop) { [weak self] in
            self?.work?.cancel()
            self?.finish(late)
        }
        timer.start(after: milliseconds)
        self.timer = timer
    }

    /// Whether it was answered or cancelled. It may be answered inside `init`, before the caller has stored it.
    package var isOver: Bool { self.completion == nil }

    deinit {
        self.timer?.close()
    }

    package func cancel() {
        guard self.completion != nil else { return }
        self.completion = nil
        self.work?.cancel()
        self.timer?.close()
        self.timer = nil
    }

    private func finish(_ answer: Answer) {
        let completion = self.completion
        self.completion = nil
        self.timer?.close()
        self.timer = nil
        completion?(answer)
    }
}
