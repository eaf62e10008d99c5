import Agent
import AgentCore
import ArgumentParser
import Console
import Settings

/// `diglett check`
struct CheckCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "check", _superCommandName: "diglett",
        abstract: "Checks a configuration and reports all errors, without starting.",
        discussion: """
            Makes no connections. Exit codes: 0 no errors, 64 bad argument, 74 the output cannot be written, 78 errors.
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
        try StandardOutput.write(line: (notes + ["configuration OK"]).joined(separator: "\n"))
    }
}
