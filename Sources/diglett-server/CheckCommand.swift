import ArgumentParser
import Console
import Gateway
import Settings

/// `diglett-server check`
struct CheckCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "check",
        abstract: "Says what is wrong with a configuration, all of it, without starting.",
        discussion: "Exit codes: 0 nothing, 74 the output cannot be written, 78 something is wrong.")

    @Argument(
        help: "The configuration file; the gateway's other options may be given as well.",
        completion: .file(extensions: ["toml"]))
    var file: String?

    @ParentCommand var server: DiglettServer

    func run() throws {
        try Self.reporting(self.server) {
            var options = self.server.options
            options.configuration = self.file ?? options.configuration
            let notes = try ConfigurationCheck.run(options)
            let isClean = !notes.contains { $0.hasPrefix(ConfigurationCheck.warningMark) }
            let end = isClean ? "nothing is wrong" : "nothing else is wrong"
            try StandardOutput.write(line: (notes + [end]).joined(separator: "\n"))
        }
    }
}
