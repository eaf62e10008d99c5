import Administration
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
        abstract: "Manages agents and the names they may use.",
        discussion: """
            Agents are kept in agents.toml in the gateway's state directory. A running gateway applies each change before \
            the command returns: links and names that are no longer allowed are closed. Manual edits of the file are \
            applied within a second. \(Self.whichGateway)
            """,
        subcommands: [Add.self, List.self, Rotate.self, Remove.self, PinCommand.self])

    /// The gateway's options are accepted by each of these commands, but their help does not list them.
    private static let whichGateway = """
        --agents-file, --state-dir and --config select the gateway. For root, the default is the service with its \
        /etc/diglett-server/diglett-server.toml.
        """

    /// Its options select the gateway.
    @ParentCommand var server: DiglettServer

    fileprivate func administration() throws -> AgentAdministration {
        try AgentAdministration(settings: try GatewaySettings(self.server.options.withServiceConfiguration))
    }

    private func running(_ administration: AgentAdministration) -> RunningGateway? {
        (try? administration.controlPlaces(self.server.options.withServiceConfiguration)).map {
            RunningGateway(places: $0)
        }
    }

    /// The port of the command that starts an agent: as set, else that of the running gateway, else the default.
    fileprivate func port(_ administration: AgentAdministration) -> UInt16 {
        guard administration.listensByDefault else { return administration.port }
        return self.running(administration)?.port ?? administration.port
    }

    /// Makes a running gateway read the change. A failure is only a warning, because the change itself was made.
    ///
    /// - Returns: whether a gateway has read the change.
    fileprivate func reload(_ administration: AgentAdministration) -> Bool {
        guard let gateway = self.running(administration) else { return false }
        switch gateway.reload() {
        case .done: return true
        case .absent: return false
        case .failed(let text):
            self.server.warn(text)
            return false
        }
    }

    /// The output for programs of a command that changes agents.
    fileprivate struct Change: Encodable {
        let name: String
        let agentsFile: String
        /// Whether a running gateway has read the change.
        let reloaded: Bool
        var token: String?
        var version1Token: String?
        /// The value for the agent's `-g`.
        var gateway: String?
        var pin: String?
        var formerTokenUntil: String?
        /// Advice about the line, for people.
        var note: String?

        private enum CodingKeys: String, CodingKey {
            case name, reloaded, token, gateway, pin, note
            case agentsFile = "agents-file"
            case version1Token = "v1-token"
            case formerTokenUntil = "former-token-until"
        }

        init(_ name: String, _ administration: AgentAdministration, reloaded: Bool) {
            self.name = name
            self.agentsFile = administration.path
            self.reloaded = reloaded
        }

        mutating func add(_ made: AgentAdministration.Invitation) {
            self.token = made.token
            self.version1Token = made.version1Token
            self.gateway = made.line
            self.note = made.note
            self.formerTokenUntil = made.formerTokenUntil.map { Timestamp.text($0) }
        }
    }

    /// - Parameters:
    ///   - output: the format.
    ///   - text: the output for people.
    fileprivate static func write(
        _ change: Change, _ output: ControlCommand.OutputOption, text: @autoclosure () -> String
    ) throws {
        let text = output.output == .json ? try ControlText.json(change, isPretty: false) + "\n" : text()
        guard change.token != nil else { return try StandardOutput.write(text) }
        // The token cannot be shown again: if writing fails, the agent exists but its token is lost. Without this,
        // SIGPIPE would end the program silently if the reader is gone.
        signal(SIGPIPE, SIG_IGN)
        do throws(OutputError) { try StandardOutput.write(text) } catch {
            Complaint.write(
                "\(error): the token was not shown; 'diglett-server agent rotate \(change.name)' creates another")
            throw ExitCode(GatewayError.Kind.output.rawValue)
        }
    }

    fileprivate static func text(_ made: AgentAdministration.Invitation) -> String {
        var text = "token (shown only once): \(made.token)\n"
        if let token = made.version1Token { text += "token for version 1 (shown only once): \(token)\n" }
        if let until = made.formerTokenUntil {
            text += "the former token is valid until \(Timestamp.text(until))\n"
        }
        text += "start the agent with:\n"
        text += "  diglett -g '\(made.line)' -n \(made.example) localhost:9000\n"
        return text + (made.note.map { "\($0)\n" } ?? "")
    }

    /// The address at which agents reach the gateway.
    struct Address: ParsableArguments {
        @Option(
            name: .customLong("host"),
            help: ArgumentHelp(
                "The gateway's public address, for the command to copy. (default: this machine's name and the gateway's port)",
                valueName: "host[:port]"))
        var text: String?

        /// This machine's host name (gethostname(2)).
        private static var machine: String {
            // HOST_NAME_MAX is 64 on Linux, plus a zero byte.
            var name = [CChar](repeating: 0, count: 65)
            gethostname(&name, name.count - 1)
            return String(decoding: name.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
        }

        /// A line about a host that is only guessed.
        var note: String {
            guard self.text == nil else { return "" }
            return "'\(Self.machine)' is the name of this machine: pass --host if agents reach it by another one\n"
        }

        /// - Parameter port: used if the text has none.
        func hostPort(port: UInt16) throws -> String {
            let text = self.text ?? Self.machine
            // It becomes part of a line that a shell parses, and then the agent.
            guard let hostPort = HostPort(text, defaultPort: port), hostPort.port > 0, HostPort.isHost(hostPort.host),
                !AgentToken.looksLikeOne(hostPort.host)
            else {
                let whose = self.text == nil ? ", the name of this machine," : ""
                throw SettingsError(
                    "option --host",
                    "'\(text)'\(whose) is not a gateway address: write HOST, HOST:PORT or [IPV6]:PORT")
            }
            return hostPort.description
        }
    }

    struct Add: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Adds an agent and prints its token, once.", discussion: AgentCommand.whichGateway)

        @Argument(help: "The agent's name, in logs and in its token.")
        var name: String

        @Option(keys.names) var names: [String] = []
        @Option(keys.ports) var ports: [String] = []
        @Option(keys.expires) var expires: String?
        @Option(keys.pins) var pin: [String] = []
        @Flag(keys.v1Token) var version1 = false
        @OptionGroup var address: Address
        @OptionGroup var output: ControlCommand.OutputOption
        @ParentCommand var parent: AgentCommand

        private static let keys = AgentEntryKeys.keys

        func run() throws {
            try Self.reporting(self.parent.server) {
                var request = AgentAdministration.Request()
                request.names = self.names.flatMap { $0.split(separator: ",").map(String.init) }
                request.ports = self.ports
                request.expires = self.expires
                request.pins = self.pin
                request.hasVersion1 = self.version1
                let administration = try self.parent.administration()
                let wasOpen = administration.isOpenToMachine
                let made = try administration.add(
                    self.name, request, host: try self.address.hostPort(port: self.parent.port(administration)))
                var change = Change(self.name, administration, reloaded: self.parent.reload(administration))
                if let made { change.add(made) }
                let closes = "from now on the gateway accepts only agents in this file, also from this machine"
                if wasOpen, self.output.output == .json { self.parent.server.warn("\(administration.path): \(closes)") }
                try AgentCommand.write(
                    change, self.output,
                    text: "added agent '\(self.name)' to \(administration.path)\n" + (wasOpen ? "\(closes)\n" : "")
                        + (made.map { AgentCommand.text($0) + self.address.note } ?? "")
                        + (change.reloaded
                            ? "" : "no running gateway uses this file: start it as this user, or pass --state-dir\n"))
            }
        }
    }

    struct List: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Lists the agents.", discussion: AgentCommand.whichGateway)

        @Option(
            help: ArgumentHelp("Output format: text, or json for one object.", valueName: "text|json"),
            completion: .list(["text", "json"]))
        var output = "text"

        @ParentCommand var parent: AgentCommand

        func validate() throws {
            guard ["text", "json"].contains(self.output) else {
                throw ValidationError("option --output: '\(self.output)' is neither text nor json")
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
            abstract: "Replaces an agent's token and prints the new one, once.",
            discussion: """
                Links that used an older token are closed, unless --grace keeps it valid. \
                \(AgentCommand.whichGateway)
                """)

        @Argument(help: "The agent's name.")
        var name: String

        @Option(
            help: ArgumentHelp(
                "Keep the old token valid for this long: 24h, 7d, 30m or 45s. (default: not at all)", valueName: "time")
        )
        var grace: String?

        @Flag(AgentEntryKeys.keys.v1Token) var version1 = false

        @OptionGroup var address: Address
        @OptionGroup var output: ControlCommand.OutputOption
        @ParentCommand var parent: AgentCommand

        func run() throws {
            try Self.reporting(self.parent.server) {
                let administration = try self.parent.administration()
                let made = try administration.rotate(
                    self.name, hasVersion1: self.version1, grace: self.grace,
                    host: try self.address.hostPort(port: self.parent.port(administration)))
                var change = Change(self.name, administration, reloaded: self.parent.reload(administration))
                change.add(made)
                try AgentCommand.write(change, self.output, text: AgentCommand.text(made) + self.address.note)
            }
        }
    }

    struct Remove: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Removes an agent and closes its links.", discussion: AgentCommand.whichGateway)

        @Argument(help: "The agent's name.")
        var name: String

        @OptionGroup var output: ControlCommand.OutputOption
        @ParentCommand var parent: AgentCommand

        func run() throws {
            try Self.reporting(self.parent.server) {
                let administration = try self.parent.administration()
                try administration.remove(self.name)
                try AgentCommand.write(
                    Change(self.name, administration, reloaded: self.parent.reload(administration)), self.output,
                    text: "removed agent '\(self.name)'\n")
            }
        }
    }

    struct PinCommand: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "pin", abstract: "Allows an agent by its key, which 'diglett key' prints.",
            discussion: AgentCommand.whichGateway)

        @Argument(help: "The agent's name.")
        var name: String

        @Argument(help: "The pin, sha256/...")
        var pin: String

        @OptionGroup var output: ControlCommand.OutputOption
        @ParentCommand var parent: AgentCommand

        func run() throws {
            try Self.reporting(self.parent.server) {
                let administration = try self.parent.administration()
                try administration.pin(self.name, self.pin)
                var change = Change(self.name, administration, reloaded: self.parent.reload(administration))
                change.pin = self.pin
                try AgentCommand.write(
                    change, self.output, text: "agent '\(self.name)' may now log in with the key \(self.pin)\n")
            }
        }
    }
}

extension ParsableCommand {
    /// Runs a command that changes or shows files. Reports its errors, and throws the exit code for them.
    ///
    /// - Parameter server: its option `--log-format` selects the format of the errors. The log format in the gateway's
    ///   file does not matter, because the errors are for the user who runs the command.
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
            let isArgument = SettingsErrors(errors).areOfCommandLine
            return ExitCode((isArgument ? GatewayError.Kind.usage : .configuration).rawValue)
        }
        do { try body() } catch let error as SettingsErrors { throw fail(error.all) } catch let error as SettingsError {
            throw fail([error])
        }
    }
}

extension DiglettServer {
    /// Writes a warning of a command in the format of `--log-format`.
    func warn(_ text: String) {
        guard LogFormat.wanted(option: self.logFormat, configuration: nil) == .json else { return Complaint.warn(text) }
        Journal.logger(debug: 0, format: .json).warning("\(Secrets.hidden(in: text))")
    }
}
