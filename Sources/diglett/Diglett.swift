import Agent
import AgentCore
import ArgumentParser
import Console
import Glibc
import Journal
import Logging
import Reactor
import Settings
import Supervision
import Wire

/// The agent beside the service.
@main
struct Diglett: ParsableCommand, Daemon {
    static let configuration = CommandConfiguration(
        commandName: "diglett",
        abstract: "Makes a local service reachable through a public diglett gateway.",
        usage: """
            diglett -g GATEWAY -n NAME [options] BACKEND
            diglett -g GATEWAY -n NAME=BACKEND [-n NAME2=BACKEND2 ...] [options]
            diglett -c FILE
            """,
        discussion: """
            BACKEND is the service: HOST:PORT, PORT (on localhost) or unix:PATH.
            GATEWAY is HOST[:PORT] (port 20000 by default), or everything in one line: \
            diglett://TOKEN@HOST:PORT#sha256/PIN

            Example: diglett -g gateway.example.com -n example localhost:9000

            Exit codes: 0 stopped; 10 the gateway's key is not the expected one; 11 login refused; 12 the gateway \
            takes agents of its own machine only; 13 name refused; 14 name taken; 15 replaced by a newer agent; \
            16 two agents with one identity; 17 no common version; 18 public port refused; 64 bad argument; \
            69 unreachable, with --once; 78 bad configuration. 'diglett explain 14' says what to do.
            """,
        version: "diglett \(Release.version)",
        subcommands: [KeyCommand.self, StatusCommand.self, ExplainCommand.self]
    )

    @Option(name: .shortAndLong, help: "The gateway.")
    var gateway: String?

    @Option(
        name: [.customShort("n"), .customLong("name")], parsing: .unconditionalSingleValue,
        help: "Under which name to expose BACKEND, or NAME=BACKEND; may be repeated.")
    var names: [String] = []

    @Option(
        name: .shortAndLong, help: "The token for the gateway. For a moment others can see it in the list of processes."
    )
    var token: String?

    @Option(
        help: ArgumentHelp(
            "A file with the token, read again at each login, or '-' for standard input. (or the environment: "
                + "DIGLETT_TOKEN)", valueName: "file"),
        completion: .file())
    var tokenFile: String?

    @Option(
        name: .customLong("pin"),
        help: ArgumentHelp(
            "The gateway's key, as it prints it; may be given twice. (default: a certificate of a public authority, or "
                + "the key that was accepted before)", valueName: "sha256/..."))
    var pins: [String] = []

    @Option(help: ArgumentHelp("The wanted public port. (default: the gateway chooses)", valueName: "port"))
    var publicPort: String?

    @Option(
        help: ArgumentHelp(
            "Tell the services the visitors' addresses by a PROXY header, which they must expect. (default: no header)",
            valueName: "v1|v2"),
        completion: .list(["v1", "v2"]))
    var proxyProtocol: String?

    @Option(
        help: ArgumentHelp(
            "What to print: text, or json for one event a line. (default: text)", valueName: "text|json"),
        completion: .list(["text", "json"]))
    var output: String?

    @Option(
        help: ArgumentHelp(
            "Write where the names are reachable to a file, a line for each, once all of them are; it is removed at the "
                + "end.", valueName: "file"), completion: .file())
    var urlFile: String?

    @Option(
        help: ArgumentHelp(
            "Have the shell run a command once all names are reachable, with DIGLETT_URL in its environment; it is ended "
                + "with the agent.", valueName: "command"))
    var execOnReady: String?

    @Option(
        help: ArgumentHelp(
            "The largest TCP segment of the link, 536 to 8960. (default: what the path allows; 1200 after a link on "
                + "which large packets were lost)", valueName: "bytes"))
    var linkMss: String?

    @Flag(help: "End when the link cannot be made or is lost, instead of trying for ever.")
    var once = false

    @Flag(
        name: .customLong("v1"),
        help: "Speak protocol version 1, to a gateway of the original diglett. Nothing in it is authenticated.")
    var version1 = false

    @Flag(name: .shortAndLong, help: "Log more; may be repeated.")
    var debug: Int

    @Option(
        help: ArgumentHelp(
            "How lines of the log are written: text, or json for one object a line. (default: text)",
            valueName: "text|json"), completion: .list(["text", "json"]))
    var logFormat: String?

    @Flag(help: "Log each stream when it is over: its bytes, its times and why it ended.")
    var logStreams = false

    @Option(
        name: [.customShort("c"), .customLong("config")], help: "Read these settings from a TOML file.",
        completion: .file(extensions: ["toml"]))
    var configurationFile: String?

    @Option(
        help: ArgumentHelp(
            "Where to keep the instance key and known gateways. (default: below ~/.local/state)", valueName: "dir"),
        completion: .directory)
    var stateDir: String?

    @Argument(help: "The service: HOST:PORT, PORT or unix:PATH.")
    var backend: String?

    /// A bare word would be taken for a backend, and none of these can be one.
    static func main() {
        var arguments = Array(CommandLine.arguments.dropFirst())
        let asksForHelp = arguments.first == "help"
        if asksForHelp { arguments = [String](arguments.dropFirst().prefix(1)) + ["--help"] }
        let command = Self.configuration.subcommands.first { $0.configuration.commandName == arguments.first }
        if let command {
            Program.run(command, Array(arguments.dropFirst()))
        } else {
            Program.run(Self.self, asksForHelp ? ["--help"] : arguments)
        }
    }

    mutating func run() throws {
        // Before anything is started that could inherit it.
        let environment = ServiceEnvironment.take()
        let sockets = InheritedSockets(names: environment.socketNames)
        self.hideSecrets()
        var options = AgentOptions()
        options.gateway = self.gateway
        options.names = self.names
        options.backend = self.backend
        options.token = self.token
        options.tokenFile = self.tokenFile
        options.pins = self.pins
        options.publicPort = self.publicPort
        options.proxyProtocol = self.proxyProtocol
        options.output = self.output
        options.once = self.once
        options.version1 = self.version1
        options.debug = self.debug
        options.logFormat = self.logFormat
        options.logsStreams = self.logStreams
        options.configuration = self.configurationFile
        options.stateDirectory = self.stateDir
        options.urlFile = self.urlFile
        options.execOnReady = self.execOnReady
        options.linkMSS = self.linkMss
        var known: Logger?
        /// Of the settings; when they are what is wrong, as far as they can be told.
        var logger: Logger {
            known
                ?? Journal.logger(
                    debug: self.debug,
                    format: .wanted(option: self.logFormat, configuration: self.configurationFile))
        }
        let exit: ExitReason
        do {
            let settings = try Self.settings(options)
            let logger = Journal.logger(debug: settings.debug, format: settings.logFormat)
            known = logger
            NameCache.reserveThreads(names: settings.hostNames.count)
            let loop = try EventLoop()
            let hasTerminal = isatty(STDIN_FILENO) == 1 && isatty(STDERR_FILENO) == 1
            let question: Question? = hasTerminal ? { Terminal.ask($0) } : nil
            let agent: AgentProgram
            let manager = ServiceManager(loop: loop, environment: environment, sockets: sockets, logger: logger)
            do {
                var again = options
                again.isReload = true
                if settings.token.isReadOnce { again.token = settings.token.text }
                agent = try AgentProgram(
                    loop: loop, settings: settings, logger: logger, ask: question, manager: manager,
                    reread: { [again] () throws(SettingsError) in
                        do throws(SettingsError) { return try AgentSettings(again) } catch {
                            // It goes to the log, and a token may have been written in a wrong place.
                            throw SettingsError(error.place, Secrets.hidden(in: error.reason))
                        }
                    })
            } catch {
                manager.close()
                loop.close()
                throw error
            }
            agent.start()
            loop.run()
            exit = agent.exit
            manager.close()
            loop.close()
            loop.endProcess(exit.rawValue)
        } catch let error as SettingsError {
            logger.error("\(Secrets.hidden(in: "\(error)"))")
            let isArgument = error.place.hasPrefix("option ") || error.place == "backend"
            throw ExitCode((isArgument ? ExitReason.usage : .configuration).rawValue)
        }
        guard exit == .stopped else { throw ExitCode(exit.rawValue) }
    }

    /// They may be read from the terminal, of which only the token is: `token-file` can be `-` in a file, too.
    private static func settings(_ options: AgentOptions) throws(SettingsError) -> AgentSettings {
        let canAsk = options.tokenFile == "-" || options.tokenFile == nil && options.configuration != nil
        guard canAsk, isatty(STDIN_FILENO) == 1 else { return try AgentSettings(options) }
        if options.tokenFile == "-" { Terminal.show("The token, which is not shown; Ctrl-D in a new line ends it: ") }
        let result = Result { () throws(SettingsError) in
            try Terminal.withoutEcho { () throws(SettingsError) in try AgentSettings(options) }
        }
        // What ended the line was not shown either.
        if options.tokenFile == "-" { Terminal.show("\n") }
        return try result.get()
    }

    private func hideSecrets() {
        if let token = self.token { SecretArguments.hide(token) }
        // One that is no address ends the program at once.
        let address = try? self.gateway.map { try GatewayAddress($0, defaultPort: 1, place: "option -g") }
        if let token = address?.token { SecretArguments.hide(token) }
    }
}
