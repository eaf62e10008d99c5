package import Reactor
package import Settings
internal import Wire

/// Starts a program for each question: one line of JSON to its standard input, one from its standard output.
package final class ExecHook: HookTransport {
    /// Programs that run at once; further questions wait.
    package static let mostRunning = 4
    /// Strangers who wait to be judged. The rest is asked about names, of which there are only so many.
    private static let mostWaitingLogins = 256
    /// Of the answer, and of what the program says on standard error.
    private static let mostOutput = 64 * 1_024

    private let loop: EventLoop
    private let settings: ExecSettings
    private var running = 0
    private var waitingLogins: [Question] = []
    private var waitingOthers: [Question] = []
    /// Whether a login comes next if both wait: they take turns, so that neither holds up the other.
    private var isLoginsTurn = false
    /// Those that made way for others, until they are told at the end of the turn.
    private var evicted: [Question] = []

    package init(loop: EventLoop, settings: ExecSettings) {
        self.loop = loop
        self.settings = settings
    }

    package var label: String { "exec \(self.settings.command[0])" }

    private final class Question: Cancellable {
        let request: HookRequest
        var completion: ((Result<HookAnswer, HookFailure>) -> Void)?
        var process: ChildProcess?
        private weak var hook: ExecHook?

        init(
            _ request: HookRequest, _ hook: ExecHook, _ completion: @escaping (Result<HookAnswer, HookFailure>) -> Void
        ) {
            self.request = request
            self.hook = hook
            self.completion = completion
        }

        func cancel() {
            self.completion = nil
            self.hook?.cancelled(self)
        }
    }

    package func ask(
        _ request: HookRequest, completion: @escaping (Result<HookAnswer, HookFailure>) -> Void
    ) -> any Cancellable {
        let question = Question(request, self, completion)
        if self.running < Self.mostRunning {
            self.start(question)
        } else if request.action == .authenticate {
            if self.waitingLogins.count >= Self.mostWaitingLogins { self.makeRoom() }
            self.waitingLogins.append(question)
        } else {
            self.waitingOthers.append(question)
        }
        return question
    }

    /// The eldest has waited longest already.
    private func makeRoom() {
        if self.evicted.isEmpty { self.loop.atTurnEnd(self) }
        self.evicted.append(self.waitingLogins.removeFirst())
    }

    private func start(_ question: Question) {
        self.running += 1
        let command = ChildCommand(
            arguments: self.settings.command, input: question.request.line() + [0x0A], timeout: self.settings.timeout,
            mostOutput: Self.mostOutput)
        question.process = ChildProcess.run(loop: self.loop, command) { [weak self] result in
            question.process = nil
            let completion = question.completion
            question.completion = nil
            self?.ended()
            completion?(Self.answer(result))
        }
    }

    private static func answer(_ result: Result<ChildOutcome, ChildFailure>) -> Result<HookAnswer, HookFailure> {
        switch result {
        case .failure(let failure): return .failure(HookFailure(failure.description))
        case .success(let outcome):
            guard case .exited(code: 0) = outcome.end else {
                let words = String(decoding: outcome.standardError.prefix(200), as: UTF8.self)
                let shown = PeerText.escaped(words.split(separator: "\n").last.map(String.init) ?? "")
                return .failure(HookFailure("\(outcome)" + (shown.isEmpty ? "" : ": \(shown)")))
            }
            return HookAnswer.parse(outcome.standardOutput)
        }
    }

    private func cancelled(_ question: Question) {
        if let process = question.process {
            question.process = nil
            process.cancel()
            self.ended()
        } else {
            self.waitingLogins.removeAll { $0 === question }
            self.waitingOthers.removeAll { $0 === question }
        }
    }

    private func ended() {
        self.running -= 1
        let isLogin = self.waitingOthers.isEmpty || (self.isLoginsTurn && !self.waitingLogins.isEmpty)
        self.isLoginsTurn = !isLogin
        if isLogin {
            guard !self.waitingLogins.isEmpty else { return }
            self.start(self.waitingLogins.removeFirst())
        } else {
            self.start(self.waitingOthers.removeFirst())
        }
    }

    package func close() {
        self.waitingLogins = []
        self.waitingOthers = []
        self.evicted = []
    }
}

extension ExecHook: TurnEndHandler {
    package func turnDidEnd() {
        let evicted = self.evicted
        self.evicted = []
        for question in evicted {
            let completion = question.completion
            question.completion = nil
            completion?(.failure(HookFailure("too many questions wait")))
        }
    }
}
