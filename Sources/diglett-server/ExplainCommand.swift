import ArgumentParser
import Explain

/// `diglett-server explain`
struct ExplainCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "explain",
        abstract: "Says what an exit code or a code of a log means, and what to do.",
        discussion: "CODE is a number or a name: diglett-server explain 71, diglett-server explain name-taken.")

    @Argument(help: "The code. (default: list all)")
    var code: String?

    @Flag(help: ArgumentHelp("Print docs/errors.md.", visibility: .hidden))
    var markdown = false

    func validate() throws {
        if let code = self.code, Explanations.find(code).isEmpty {
            throw ValidationError(Explanations.refusal(of: code))
        }
    }

    func run() {
        if self.markdown { return print(Page.markdown, terminator: "") }
        print(self.code.map { Page.detail(Explanations.find($0)) } ?? Page.list, terminator: "")
    }
}
