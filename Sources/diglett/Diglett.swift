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

/// The agent, next to the service that it exposes.
@main
struct Diglett: ParsableCommand, Daemon {
    static let configuration = CommandConfiguration(
        commandName: "diglett",
        abstract: "Exposes a service behind NAT or a firewall through a public diglett gateway.",
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

            Exit codes: 0 stopped; 10 unexpected gateway key; 11 login refused; 12 the gateway accepts only \
            local agents; 13 name refused; 14 name taken; 15 replaced by a newer agent; \
            16 two agents with one identity; 17 no common version; 18 public port refused; 64 bad argument; \
            69 unreachable, with --once; 78 bad configuration. 'diglett explain 14' says what to do.
            """,
        version: "diglett \(Release.version)",
        subcommands: [CheckCommand.self, KeyCommand.self, StatusCommand.self, ExplainCommand.self]
    )

    @Option(keys.gateway) var gateway: String?
    @Option(keys.expose, parsing: .unconditionalSingleValue) var expose: [String] = []
    @Option(keys.token) var token: String?
    @Option(keys.tokenFile) var tokenFile: String?
    @Option(keys.pin) var pin: [String] = []
    @Option(exposeKeys.publicPort) var publicPort: String?
    @Option(exposeKeys.proxyProtocol) var proxyProtocol: String?
    @Option(keys.output) var output: String?
    @Option(keys.urlFile) var urlFile: String?
    @Option(keys.execOnReady) var execOnReady: String?
    @Option(keys.linkMSS) var linkMss: String?
    @Flag(keys.once) var once = false
    @Flag(keys.v1) var v1 = false
    @Flag(keys.debug) var debug: Int
    @Option(keys.logFormat) var logFormat: String?
    @Flag(keys.logStreams) var logStreams = false
    @Option(CommonKeys.config) var config: String?
    @Option(keys.stateDir) var stateDir: String?
    @Argument(exposeKeys.backend) var backend: String?

    static let keyTables: [any KeyTable.Type] = [AgentKeys.self, ExposeKeys.self]
    private static let keys = AgentKeys.keys
    private static let exposeKeys = ExposeKeys.keys

    /// Selects subcommands here: the parser would take such a word for a backend, and none of them is a valid backend.
    static func main() {
        var arguments = Program.arguments
        if arguments.isEmpty { FirstSteps.show() }
        if let error = CommandWord.error(in: arguments) { FirstSteps.fail(error) }
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
        if let error = self.backend.flatMap({ CommandWord.error(inBackend: $0) }) { FirstSteps.fail(error) }
        // Must come before anything starts that could inherit these.
        let environment = ServiceEnvironment.take()
        let sockets = InheritedSockets(names: environment.socketNames)
        self.hideSecrets()
        let options = CommandOptions(of: self, Self.keyTables)
        var known: Logger?
        /// As configured. If the settings have errors, the format is taken from them as far as possible.
        var logger: Logger {
            known
                ?? Journal.logger(
                    debug: self.debug,
                    format: .wanted(option: self.logFormat, configuration: self.config))
        }
        let exit: ExitReason
        do {
            let settings = try Self.settings(options)
            let isWatched = Self.isWatched(settings)
            let logger = Journal.logger(debug: settings.debug, format: settings.logFormat, isBrief: isWatched)
            known = logger
            NameCache.reserveThreads(names: settings.hostNames.count)
            let loop = try EventLoop()
            let hasTerminal = isatty(STDIN_FILENO) == 1 && isatty(STDERR_FILENO) == 1
            let question: Question? = hasTerminal ? { Terminal.ask($0) } : nil
            let agent: AgentProgram
            let manager = ServiceManager(loop: loop, environment: environment, sockets: sockets, logger: logger)
            do {
                var again = options
                if settings.token.isReadOnce { again[Self.keys.token] = [settings.token.text] }
                agent = try AgentProgram(
                    loop: loop, settings: settings, logger: logger, ask: question, manager: manager,
                    isWatched: isWatched,
                    reread: { [again] () throws(SettingsErrors) in
                        do throws(SettingsErrors) { return try AgentSettings(again, for: .reload) } catch {
                            // This goes to the log, and the user may have put a token in the wrong place.
                            throw SettingsErrors(
                                error.all.map { SettingsError($0.place, Secrets.hidden(in: $0.reason)) })
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
        } catch let errors as SettingsErrors {
            StartErrors.report(errors, logger)
            throw ExitCode((errors.areOfCommandLine ? ExitReason.usage : .configuration).rawValue)
        } catch let error as SettingsError {
            logger.error("\(Secrets.hidden(in: "\(error)"))")
            throw ExitCode(ExitReason.configuration.rawValue)
        }
        guard exit == .stopped else { throw ExitCode(exit.rawValue) }
    }

    /// Reads the settings, possibly from the terminal. Only a token is read there: `token-file` can be `-` in a file
    /// too.
    private static func settings(_ options: CommandOptions) throws(SettingsErrors) -> AgentSettings {
        let tokenFile = options[self.keys.tokenFile].last
        let canAsk = tokenFile == "-" || tokenFile == nil && options.configuration != nil
        guard canAsk, isatty(STDIN_FILENO) == 1 else { return try AgentSettings(options) }
        if tokenFile == "-" { Terminal.show("Token (not shown; end it with Enter and Ctrl-D): ") }
        let result = Result { () throws(SettingsErrors) in
            try Terminal.withoutEcho { () throws(SettingsErrors) in try AgentSettings(options) }
        }
        // The end of the line was not echoed either.
        if tokenFile == "-" { Terminal.show("\n") }
        return try result.get()
    }

    /// Whether a person at a terminal sees a view instead of the log. With `-d` they want the log.
    private static func isWatched(_ settings: AgentSettings) -> Bool {
        settings.output == .text && settings.logFormat == .text && settings.debug == 0
            && Journal.hasColours(STDOUT_FILENO) && Journal.hasColours(STDERR_FILENO)
    }

    private func hideSecrets() {
        let given = ArgumentScanner(Array(CommandLine.arguments.dropFirst()), Self.keyTables).values
        func values(of key: some DescribedKey) -> [String] {
            given.filter { $0.option.name == key.description.name }.map(\.value)
        }
        for token in values(of: Self.keys.token) { SecretArguments.hide(token) }
        for text in values(of: Self.keys.gateway) {
            // An invalid address ends the program, so it is ignored here.
            let address = try? GatewayAddress(text, defaultPort: 1, place: "option -g")
            if let token = address?.token { SecretArguments.hide(token) }
        }
    }
}
