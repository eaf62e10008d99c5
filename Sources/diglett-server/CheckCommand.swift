import Administration
import ArgumentParser
import Console
import Gateway
import Settings

/// `diglett-server check`
struct CheckCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "check",
        abstract: "Checks a configuration and reports all errors, without starting.",
        discussion:
            "Exit codes: 0 no errors, 64 errors on the command line only, 74 the output cannot be written, 78 errors.")

    @Argument(
        help: "The configuration file; other options of the gateway are allowed too.",
        completion: .file(extensions: ["toml"]))
    var file: String?

    @ParentCommand var server: DiglettServer

    func run() throws {
        try Self.reporting(self.server) {
            var options = self.server.options
            if self.file != nil, options.configuration != nil {
                throw SettingsError("argument FILE", "the configuration was given twice: leave out --config or FILE")
            }
            options.configuration = self.file ?? options.configuration
            let notes = try ConfigurationCheck.run(options)
            let isClean = !notes.contains { $0.hasPrefix(ConfigurationCheck.warningMark) }
            let end = isClean ? "configuration OK" : "configuration OK, with warnings"
            try StandardOutput.write(line: (notes + [end]).joined(separator: "\n"))
        }
    }
}
