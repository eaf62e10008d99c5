import ArgumentParser
import Explain

/// `diglett explain`
struct ExplainCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "explain", _superCommandName: "diglett",
        abstract: "Says what an exit code or a code of a log means, and what to do.",
        discussion: "CODE is a number or a name: diglett explain 14, diglett explain name-taken.")

    @Argument(help: "The code. (default: list all)")
    var code: String?

    func validate() throws {
        if let code = self.code, Explanations.find(code).isEmpty {
            throw ValidationError(Explanations.refusal(of: code))
        }
    }

    func run() {
        print(self.code.map { Page.detail(Explanations.find($0)) } ?? Page.list, terminator: "")
    }
}
