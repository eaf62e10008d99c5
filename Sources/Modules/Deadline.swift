package import Reactor

/// The modules get this long for one question or action, in milliseconds.
package let moduleDeadline: UInt64 = 10_000

/// Runs one question or action of a module with a deadline: whoever comes first, the answer, the deadline or the
/// cancellation, decides, and nothing that comes later is heard.
package final class DeadlinedOperation<Answer>: Cancellable {
    private var completion: ((Answer) -> Void)?
    private var work: (any Cancellable)?
    private var timer: LoopTimer?

    /// - Parameters:
    ///   - milliseconds: the deadline.
    ///   - late: the answer when it passes.
    ///   - start: begins the work; its completion may be called at once.
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

    /// Whether nothing more comes of it: it may be answered while it is made, before anybody can keep it.
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
