import ArgumentParser
import Console
import Gateway
import Glibc
import Journal
import Logging
import Settings

/// `diglett-server agent ...`
struct AgentCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "agent",
        abstract: "Says which agents may use which names.",
        discussion: """
            Agents stand in agents.toml in the gateway's state directory. A running gateway sees a change within a \
            second, and closes what has lost its right. \(Self.whichGateway)
            """,
        subcommands: [Add.self, List.self, Rotate.self, Remove.self, PinCommand.self])

    /// Its options are known to each of the commands, whose help does not list them.
    private static let whichGateway = """
        --agents-file, --state-dir and --config say which gateway's agents are meant, as for the gateway itself.
        """

    /// Its options say which gateway is meant.
    @ParentCommand var server: DiglettServer

    fileprivate func administration() throws -> AgentAdministration {
        try AgentAdministration(settings: try GatewaySettings(self.server.options))
    }

    /// Where agents find the gateway.
    struct Address: ParsableArguments {
        @Option(
            name: .customLong("host"),
            help: ArgumentHelp(
                "Where agents reach the gateway, for the line to copy. (default: this machine's name and the port of the first --listen)",
                valueName: "host[:port]"))
        var text: String?

        /// This machine's name (gethostname(2)).
        private static var machine: String {
            // HOST_NAME_MAX is 64 on Linux, and a zero.
            var name = [CChar](repeating: 0, count: 65)
            gethostname(&name, name.count - 1)
            return String(decoding: name.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
        }

        /// - Parameter port: where the text names none.
        func hostPort(port: UInt16) throws -> String {
            let text = self.text ?? Self.machine
            // It is a part of a line that a shell reads, and then the agent.
            guard let hostPort = HostPort(text, defaultPort: port), hostPort.port > 0, HostPort.isHost(hostPort.host)
            else {
                let whose = self.text == nil ? ", the name of this machine," : ""
                throw SettingsError(
                    "option --host",
                    "'\(text)'\(whose) is no address of a gateway: write HOST, HOST:PORT or [IPV6]:PORT")
            }
            return hostPort.description
        }
    }

    struct Add: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Adds an agent and prints its token, once.", discussion: AgentCommand.whichGateway)

        @Argument(help: "The agent's name, in logs and in its token.")
        var name: String

        @Option(
            parsing: .singleValue,
            help: ArgumentHelp(
                "Which names it may use: 'api', 'app-*'; commas between, or repeated.", valueName: "patterns"))
        var names: [String] = []

        @Option(help: ArgumentHelp("Which public ports it may have. (default: any)", valueName: "low-high"))
        var ports: [String] = []

        @Option(help: ArgumentHelp("Until when: 90d, 12h or 2027-02-21.", valueName: "time"))
        var expires: String?

        @Option(help: ArgumentHelp("Know it by this key of 'diglett key' instead of a token.", valueName: "sha256/..."))
        var pin: [String] = []

        @Flag(name: .customLong("v1"), help: "Make a token for protocol version 1 as well.")
        var version1 = false

        @OptionGroup var address: Address
        @ParentCommand var parent: AgentCommand

        func run() throws {
            try Self.reporting(self.parent.server) {
                var wish = AgentAdministration.Wish()
                wish.names = self.names.flatMap { $0.split(separator: ",").map(String.init) }
                wish.ports = self.ports
                wish.expires = self.expires
                wish.pins = self.pin
                wish.hasVersion1 = self.version1
                let administration = try self.parent.administration()
                let wasOpen = administration.isOpenToMachine
                let made = try administration.add(
                    self.name, wish, host: try self.address.hostPort(port: administration.port))
                var added = "added agent '\(self.name)' to \(administration.path)"
                if wasOpen {
                    added += "\nfrom now on only agents in this file are let in, those of this machine too"
                }
                guard let made else { return try StandardOutput.write(line: added) }
                try Self.show(made, for: self.name, example: wish.names.first ?? "example", after: added + "\n")
            }
        }
    }

    struct List: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Lists the agents.", discussion: AgentCommand.whichGateway)

        @Option(
            help: ArgumentHelp("How: text, or json for one object.", valueName: "text|json"),
            completion: .list(["text", "json"]))
        var output = "text"

        @ParentCommand var parent: AgentCommand

        func validate() throws {
            guard ["text", "json"].contains(self.output) else {
                throw ValidationError("--output is text or json, not '\(self.output)'")
            }
        }

        func run() throws {
            try Self.reporting(self.parent.server) {
                let agents = try self.parent.administration().list()
                try StandardOutput.write(
                    line: self.output == "json" ? try AgentTable.json(agents) : AgentTable.text(agents))
            }
        }
    }

    struct Rotate: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Gives an agent a new token and prints it, once. Links with the old one are closed.",
            discussion: AgentCommand.whichGateway)

        @Argument(help: "The agent's name.")
        var name: String

        @Flag(name: .customLong("v1"), help: "Make a token for protocol version 1 as well.")
        var version1 = false

        @OptionGroup var address: Address
        @ParentCommand var parent: AgentCommand

        func run() throws {
            try Self.reporting(self.parent.server) {
                let administration = try self.parent.administration()
                let made = try administration.rotate(
                    self.name, hasVersion1: self.version1,
                    host: try self.address.hostPort(port: administration.port))
                try Self.show(made, for: self.name, example: "example")
            }
        }
    }

    struct Remove: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Removes an agent; its links are closed.", discussion: AgentCommand.whichGateway)

        @Argument(help: "The agent's name.")
        var name: String

        @ParentCommand var parent: AgentCommand

        func run() throws {
            try Self.reporting(self.parent.server) {
                try self.parent.administration().remove(self.name)
                try StandardOutput.write(line: "removed agent '\(self.name)'")
            }
        }
    }

    struct PinCommand: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "pin", abstract: "Lets an agent in by its key, as 'diglett key' prints it.",
            discussion: AgentCommand.whichGateway)

        @Argument(help: "The agent's name.")
        var name: String

        @Argument(help: "The pin, sha256/...")
        var pin: String

        @ParentCommand var parent: AgentCommand

        func run() throws {
            try Self.reporting(self.parent.server) {
                try self.parent.administration().pin(self.name, self.pin)
                try StandardOutput.write(line: "agent '\(self.name)' is known by \(self.pin) now")
            }
        }
    }
}

extension ParsableCommand {
    /// Runs a command that changes or shows files; says what is wrong and ends with the code for it.
    ///
    /// - Parameter server: has the options of the gateway, of which `--log-format` says in which form that is told. What
    ///   the gateway's file says about its log does not matter: whoever runs a command reads the answer.
    static func reporting(_ server: DiglettServer? = nil, _ body: () throws -> Void) throws {
        func fail(_ errors: [SettingsError]) -> ExitCode {
            let format = LogFormat.wanted(option: server?.logFormat, configuration: nil)
            let logger = Journal.logger(debug: 0, format: format)
            for error in errors {
                if format == .json {
                    logger.error("\(Secrets.hidden(in: "\(error)"))")
                } else {
                    Complaint.write("\(error)")
                }
            }
            let isArgument = errors.allSatisfy { $0.place.hasPrefix("option ") || $0.place.hasPrefix("argument ") }
            return ExitCode((isArgument ? GatewayError.Kind.usage : .configuration).rawValue)
        }
        do { try body() } catch let error as SettingsErrors { throw fail(error.all) } catch let error as SettingsError {
            throw fail([error])
        }
    }

    /// Shows what cannot be shown a second time. When that fails, the agent is there and nobody has its token.
    static func show(
        _ made: AgentAdministration.Invitation, for name: String, example: String, after added: String = ""
    ) throws {
        var text = added + "token, shown this once: \(made.token)\n"
        if let token = made.version1Token { text += "token for version 1, shown this once: \(token)\n" }
        text += "start the agent with\n"
        text += "  diglett -g '\(made.line)' -n \(example.replacing("*", with: "1")) localhost:9000\n"
        if let note = made.note { text += "\(note)\n" }
        // A reader that is gone would else end this program without a word.
        signal(SIGPIPE, SIG_IGN)
        do throws(OutputError) {
            try StandardOutput.write(text)
        } catch {
            Complaint.write(
                "\(error): the token was not shown; 'diglett-server agent rotate \(name)' makes another")
            throw ExitCode(GatewayError.Kind.output.rawValue)
        }
    }
}
