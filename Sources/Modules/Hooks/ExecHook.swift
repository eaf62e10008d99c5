package import Reactor
package import Settings
internal import Wire

/// Runs a program for each request. The program reads one line of JSON on standard input and writes its answer, one
/// line of JSON, to standard output.
package final class ExecHook: HookTransport {
    /// Programs that may run at once; ``HookQueue`` enforces it.
    package static let maxRunning = 4
    /// Bytes of standard output, and of standard error, that the program may write.
    private static let maxOutput = 64 * 1_024

    private let loop: EventLoop
    private let settings: ExecSettings

    package init(loop: EventLoop, settings: ExecSettings) {
        self.loop = loop
        self.settings = settings
    }

    package var label: String { "exec \(self.settings.command[0])" }

    private final class Question: Cancellable {
        var process: ChildProcess?

        func cancel() {
            self.process?.cancel()
            self.process = nil
        }
    }

    package func ask(
        _ request: HookRequest, completion: @escaping (Result<HookAnswer, HookFailure>) -> Void,
        whenOver: @escaping () -> Void
    ) -> any Cancellable {
        let question = Question()
        let command = ChildCommand(
            arguments: self.settings.command, input: request.line() + [0x0A], timeout: self.settings.timeout,
            maxOutput: Self.maxOutput)
        question.process = ChildProcess.run(
            loop: self.loop, command,
            completion: { result in
                question.process = nil
                completion(Self.answer(result))
            }, whenGone: whenOver)
        return question
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

    package func close() {}
}
