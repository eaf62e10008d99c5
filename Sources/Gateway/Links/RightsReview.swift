internal import Modules
internal import Reactor

/// Asks the authenticator about every name that is held, when rights may have changed.
///
/// A few at a time, so that a hook judges logins in between, and the time of each question counts from when it is asked.
/// A question without an answer decides nothing, and is asked again after a pause.
final class RightsReview {
    private static let maxAtOnce = ExecHook.maxRunning
    private static let firstPause: UInt64 = 5_000
    private static let maxPause: UInt64 = 60_000

    private let loop: EventLoop
    /// Still to be asked; the first is the last.
    private var queue: [Weak] = []
    private var unanswered: [Weak] = []
    private var running: [ObjectIdentifier: any Cancellable] = [:]
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
        while self.running.count < Self.maxAtOnce, let next = self.queue.popLast() {
            guard let exposure = next.exposure, let session = exposure.session, let grant = session.grant else {
                continue
            }
            self.ask(exposure, session, grant)
        }
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

    private func ask(_ exposure: Exposure, _ session: AgentSession, _ grant: LoginGrant) {
        let id = ObjectIdentifier(exposure)
        let question = session.recheck(exposure, of: grant, isFirst: self.passes == 1) {
            [weak self, weak exposure] isJudged in
            guard let self else { return }
            self.running[id] = nil
            if !isJudged { self.unanswered.append(Weak(exposure: exposure)) }
            self.askNext()
        }
        if !question.isOver { self.running[id] = question }
    }
}
