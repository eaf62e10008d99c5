import ArgumentParser
import Console
import Explain
import Gateway
import Settings

/// `diglett-server explain`
struct ExplainCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "explain",
        abstract: "Explains an exit code or a code in the log, and what to do.",
        discussion: "CODE is a number or a name: diglett-server explain 71, diglett-server explain name-taken.")

    @Argument(help: "The code; without it, all codes are listed.")
    var code: String?

    @Flag(help: ArgumentHelp("Print docs/errors.md.", visibility: .hidden))
    var markdown = false

    @Flag(help: ArgumentHelp("Print the gateway's tables of docs/configuration.md.", visibility: .hidden))
    var keys = false

    func run() throws {
        if self.keys { return try StandardOutput.write(KeyTables.markdown(KeyTables.ofGateway)) }
        if self.markdown { return try StandardOutput.write(Page.markdown) }
        guard let code = self.code else { return try StandardOutput.write(Page.list) }
        let found = Explanations.find(code)
        guard !found.isEmpty else {
            Complaint.write(Explanations.refusal(of: code))
            throw ExitCode(GatewayError.Kind.usage.rawValue)
        }
        try StandardOutput.write(Page.detail(found))
    }
}
