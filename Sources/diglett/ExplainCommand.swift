import AgentCore
import ArgumentParser
import Console
import Explain
import Settings

/// `diglett explain`
struct ExplainCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "explain", _superCommandName: "diglett",
        abstract: "Explains an exit code or a code in the log, and what to do.",
        discussion: "CODE is a number or a name: diglett explain 14, diglett explain name-taken.",
        version: Diglett.configuration.version)

    @Argument(help: "The code; without it, all codes are listed.")
    var code: String?

    @Flag(help: ArgumentHelp("Print the agent's tables of docs/configuration.md.", visibility: .hidden))
    var keys = false

    func run() throws {
        if self.keys { return try StandardOutput.write(KeyTables.markdown(KeyTables.ofAgent)) }
        guard let code = self.code else { return try StandardOutput.write(Page.list) }
        let found = Explanations.find(code)
        guard !found.isEmpty else {
            Complaint.write(Explanations.refusal(of: code))
            throw ExitCode(ExitReason.usage.rawValue)
        }
        try StandardOutput.write(Page.detail(found))
    }
}
