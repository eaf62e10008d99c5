package import ArgumentParser
package import Settings

/// How both programs read their command line, and end.
package enum Program {
    /// EX_IOERR: standard output takes nothing.
    private static let outputCode = ExitCode(74)

    /// Runs a command or a subcommand, and ends the process if that fails or only shows something.
    package static func run<Command: ParsableCommand>(_ command: Command.Type, _ arguments: [String]) {
        let arguments = arguments == ["version"] ? ["--version"] : arguments
        do {
            var parsed = try Command.parseAsRoot(arguments)
            if let daemon = command as? any Daemon.Type,
                let error = RepeatedOptions.error(in: arguments, daemon.keyTables)
            {
                throw ValidationError(error)
            }
            // The gateway and the agent have no need of their output.
            StandardDescriptors.ensureOpen(isOutputNeeded: !(parsed is any Daemon))
            try parsed.run()
        } catch let error as OutputError {
            Command.exit(withError: Self.failed(error))
        } catch {
            let code = Command.exitCode(for: error)
            guard !code.isSuccess else { Self.end(Command.self, arguments, showing: Command.fullMessage(for: error)) }
            let text = Self.named(Command.configuration, in: Command.fullMessage(for: error))
            if !text.isEmpty {
                let message = text.hasPrefix("Error: ") ? String(text.dropFirst(7)) : text
                Complaint.write(Typos(root: Command.self, arguments: arguments).improved(message))
            }
            Command.exit(withError: code)
        }
    }

    /// Says why standard output takes nothing, if anybody has to know; returns how to end.
    package static func failed(_ error: OutputError) -> ExitCode {
        if !error.isReaderGone { Complaint.write("\(error)") }
        return self.outputCode
    }

    /// Prints what the parser makes: help, the version, a completion.
    private static func end(
        _ command: (some ParsableCommand).Type, _ arguments: [String], showing text: String
    ) -> Never {
        StandardDescriptors.ensureOpen(isOutputNeeded: true)
        var text = text
        if let option = arguments.first, option.hasPrefix("--generate-completion-script") {
            text = CompletionScript(of: command.configuration).mended(text)
        }
        do throws(OutputError) {
            try StandardOutput.write(line: text)
        } catch {
            command.exit(withError: self.failed(error))
        }
        command.exit(withError: ExitCode.success)
    }

    /// A subcommand that is run by itself does not know its program's name in one place.
    private static func named(_ configuration: CommandConfiguration, in text: String) -> String {
        guard let program = configuration._superCommandName, let name = configuration.commandName else { return text }
        return text.replacing("See '\(name) ", with: "See '\(program) \(name) ")
    }
}

/// A command that keeps running and writes a log.
package protocol Daemon {
    /// Where its options are declared.
    static var keyTables: [any KeyTable.Type] { get }
}
