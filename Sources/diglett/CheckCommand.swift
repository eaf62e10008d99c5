import Agent
import AgentCore
import ArgumentParser
import Console
import Settings

/// `diglett check`
struct CheckCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "check", _superCommandName: "diglett",
        abstract: "Says what is wrong with a configuration, all of it, without starting.",
        discussion: """
            It connects to nothing: neither gateway nor backends need be there. Exit codes: 0 nothing, 64 bad argument, \
            74 the output cannot be written, 78 something is wrong.
            """,
        version: Diglett.configuration.version)

    @Argument(help: "The configuration file.", completion: .file(extensions: ["toml"]))
    var file: String

    func run() throws {
        var options = CommandOptions()
        options.configuration = self.file
        let notes: [String]
        do throws(SettingsErrors) { notes = try ConfigurationCheck.run(options) } catch {
            for error in error.all { Complaint.write("\(error)") }
            throw ExitCode(ExitReason.configuration.rawValue)
        }
        try StandardOutput.write(line: (notes + ["nothing is wrong"]).joined(separator: "\n"))
    }
}
