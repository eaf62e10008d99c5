internal import Modules
internal import Reactor

/// Asks the authenticator about every name that is held, when rights may have changed.
///
/// A few at a time, so that a hook judges logins in between, and the time of each question counts from when it is asked.
/// A question without an answer decides nothing, and is asked again after a pause.
final class RightsReview {
    /// As many as a hook's programs run at once.
    private static let mostAtOnce = 4
    private static let firstPause: UInt64 = 5_000
    private static let mostPause: UInt64 = 60_000

    private let loop: EventLoop
    /// Still to be asked; the first is the last.
    private var queue: [Weak] = []
    private var unanswered: [Weak] = []
    private var running: [ObjectIdentifier: any Cancellable] = [:]
    private var runningCount = 0
    private var isAsking = false
    /// Passes since rights may have changed.
    private var passes: UInt64 = 0
    private var timer: LoopTimer?

    private struct Weak { weak var exposure: Exposure? }

    init(loop: EventLoop) { self.loop = loop }

    /// Begins anew: what was asked before the change may be answered as things were.
    func begin(_ exposures: [Exposure]) {
        self.close()
        self.passes = 0
        self.pass(exposures.map { Weak(exposure: $0) })
    }

    func close() {
        self.timer?.close()
        self.timer = nil
        for question in self.running.values { question.cancel() }
        self.running = [:]
        self.runningCount = 0
        self.queue = []
        self.unanswered = []
    }

    private func pass(_ exposures: [Weak]) {
        self.passes += 1
        self.queue = exposures.reversed()
        self.askNext()
    }

    private func askNext() {
        // An authenticator may answer at once.
        guard !self.isAsking else { return }
        self.isAsking = true
        while self.runningCount < Self.mostAtOnce, let next = self.queue.popLast() {
            if let exposure = next.exposure, let session = exposure.session { self.ask(exposure, session) }
        }
        self.isAsking = false
        guard self.runningCount == 0, !self.unanswered.isEmpty else { return }
        let pause = min(Self.firstPause << min(self.passes - 1, 10), Self.mostPause)
        let unanswered = self.unanswered
        self.unanswered = []
        let timer = LoopTimer(loop: self.loop) { [weak self] in self?.pass(unanswered) }
        timer.start(after: pause)
        self.timer?.close()
        self.timer = timer
    }

    private func ask(_ exposure: Exposure, _ session: AgentSession) {
        let id = ObjectIdentifier(exposure)
        let isFirst = self.passes == 1
        var hasAnswer = false
        self.runningCount += 1
        let question = session.recheck(exposure, isFirst: isFirst) { [weak self, weak exposure] isJudged in
            hasAnswer = true
            guard let self else { return }
            self.running[id] = nil
            self.runningCount -= 1
            if !isJudged { self.unanswered.append(Weak(exposure: exposure)) }
            self.askNext()
        }
        guard let question else {
            self.runningCount -= 1
            return
        }
        if !hasAnswer { self.running[id] = question }
    }
}
