internal import GatewayCore
internal import Modules
internal import Reactor

/// Asks the authenticator about all held names again, after rights may have changed.
///
/// Only a few requests run at once. A hook can then serve logins in between, and each request's deadline starts when it
/// is sent. A request without an answer changes nothing and is retried after a pause.
final class RightsReview {
    private static let maxAtOnce = ExecHook.maxRunning
    private static let firstPause: UInt64 = 5_000
    private static let maxPause: UInt64 = 60_000

    private let loop: EventLoop
    /// Sends a request about a name (see ``AgentSessions``); nil if there is nothing to ask.
    typealias Ask = (
        _ name: ExposureID, _ isFirst: Bool, _ completion: @escaping (_ isJudged: Bool) -> Void
    ) -> DeadlinedOperation<NameVerdict>?

    private var ask: Ask?
    /// Names still to be checked, in reverse order: the next one is last.
    private var queue: [ExposureID] = []
    private var unanswered: [ExposureID] = []
    private var running: [ExposureID: any Cancellable] = [:]
    private var isAsking = false
    /// Passes since the rights changed, including retries.
    private var passes: UInt64 = 0
    private var timer: LoopTimer?

    init(loop: EventLoop) { self.loop = loop }

    /// Restarts the review: requests sent before the change may be answered by the old rights.
    func begin(_ names: [ExposureID], asking ask: @escaping Ask) {
        self.close()
        self.ask = ask
        self.passes = 0
        self.pass(names)
    }

    func close() {
        self.timer?.close()
        self.timer = nil
        for question in self.running.values { question.cancel() }
        self.running = [:]
        self.queue = []
        self.unanswered = []
    }

    private func pass(_ names: [ExposureID]) {
        self.passes += 1
        self.queue = names.reversed()
        self.askNext()
    }

    private func askNext() {
        // The authenticator may answer synchronously.
        guard !self.isAsking else { return }
        self.isAsking = true
        while self.running.count < Self.maxAtOnce, let next = self.queue.popLast() { self.ask(about: next) }
        self.isAsking = false
        guard self.running.isEmpty, !self.unanswered.isEmpty else { return }
        let pause = min(Self.firstPause << min(self.passes - 1, 10), Self.maxPause)
        let unanswered = self.unanswered
        self.unanswered = []
        let timer = LoopTimer(loop: self.loop) { [weak self] in self?.pass(unanswered) }
        timer.start(after: pause)
        self.timer?.close()
        self.timer = timer
    }

    private func ask(about name: ExposureID) {
        let question = self.ask?(name, self.passes == 1) { [weak self] isJudged in
            guard let self else { return }
            self.running[name] = nil
            if !isJudged { self.unanswered.append(name) }
            self.askNext()
        }
        if let question, !question.isOver { self.running[name] = question }
    }
}
