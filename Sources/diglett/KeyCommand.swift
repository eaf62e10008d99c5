import Agent
import AgentCore
import ArgumentParser
import Console
import Settings

/// `diglett key`
struct KeyCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "key", _superCommandName: "diglett",
        abstract: "Creates a key for this agent, unless it has one, and prints its pin.",
        discussion: """
            The gateway's operator allows the agent with 'diglett-server agent pin NAME PIN'; then it needs no token. The \
            key stays in the state directory.
            """,
        version: Diglett.configuration.version)

    @Option(
        help: ArgumentHelp(
            "The agent's state directory. (default: below ~/.local/state, for root /var/lib/diglett)", valueName: "dir"),
        completion: .directory)
    var stateDir: String?

    func run() throws {
        let pin: String
        do {
            let directory = try StateDirectory.path(self.stateDir, program: "diglett")
            pin = try AgentKey.pin(stateDirectory: directory)
        } catch {
            Complaint.write("\(error)")
            throw ExitCode(ExitReason.configuration.rawValue)
        }
        try StandardOutput.write(line: pin)
    }
}
