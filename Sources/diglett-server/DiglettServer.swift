import ArgumentParser
import Console
import Gateway
import Glibc
import Journal
import Logging
import Reactor
import Settings
import Supervision
import Wire

/// The public gateway.
@main
struct DiglettServer: ParsableCommand, Daemon {
    static let configuration = CommandConfiguration(
        commandName: "diglett-server",
        abstract: "The public gateway of diglett: exposes services behind NAT or a firewall.",
        discussion: """
            Agents (the program 'diglett') connect to this gateway and register names; for each name the gateway \
            opens a public port and forwards every connection through the agent to its service.

            Example: diglett-server -d
            Add an agent: diglett-server agent add laptop --names example --host gateway.example.com

            Until you add an agent with 'diglett-server agent add', the gateway accepts only agents on its own machine.

            Exit codes: 0 stopped, 64 bad argument, 71 an address is unavailable, 73 the state directory \
            is unusable, 78 bad configuration. 'diglett-server explain 71' says what to do.
            """,
        version: "diglett-server \(Release.version)",
        subcommands: [AgentCommand.self, CheckCommand.self, ControlCommand.self, ExplainCommand.self]
    )

    @Option(keys.listen) var listen: [String] = []
    @Option(keys.listenV1) var listenV1: [String] = []
    @Flag(keys.v1InsecureOk) var v1InsecureOk = false
    @Flag(keys.debug) var debug: Int
    @Option(keys.logFormat) var logFormat: String?
    @Flag(keys.logStreams) var logStreams = false
    @Option(CommonKeys.config) var config: String?
    @Option(keys.stateDir) var stateDir: String?
    @Option(keys.exposeBind) var exposeBind: [String] = []
    @Option(keys.exposePorts) var exposePorts: String?
    @Option(keys.exposeSockets) var exposeSockets: String?
    @Option(keys.exposeSocketsGroup) var exposeSocketsGroup: String?
    @Option(keys.auth) var auth: String?
    @Option(keys.agentsFile) var agentsFile: String?
    @Option(keys.tlsCert) var tlsCert: String?
    @Option(keys.tlsKey) var tlsKey: String?
    @Option(keys.acceptProxyProtocol) var acceptProxyProtocol: [String] = []
    @Option(keys.metrics) var metrics: String?
    @Flag(keys.metricsPerName) var metricsPerName = false
    @Flag(keys.metricsInsecureOk) var metricsInsecureOk = false
    @Option(keys.control) var control: String?
    @Option(keys.controlGroup) var controlGroup: String?

    static let keyTables: [any KeyTable.Type] = [GatewayKeys.self]
    private static let keys = GatewayKeys.keys

    /// The options on the command line, for the gateway and for its subcommands.
    var options: CommandOptions { CommandOptions(of: self, Self.keyTables) }

    static func main() { Program.run(Self.self, Program.arguments) }

    mutating func run() throws {
        // Must come first, before anything starts that could inherit these.
        let environment = ServiceEnvironment.take()
        let sockets = InheritedSockets(names: environment.socketNames)
        var known: Logger?
        /// As configured. If the settings have errors, the format is taken from them as far as possible.
        var logger: Logger {
            known
                ?? Journal.logger(
                    debug: self.debug,
                    format: .wanted(option: self.logFormat, configuration: self.config))
        }
        do {
            let settings = try GatewaySettings(self.options)
            let logger = Journal.logger(debug: settings.debug, format: settings.logFormat)
            known = logger
            let loop = try EventLoop()
            defer { loop.close() }
            let manager = ServiceManager(loop: loop, environment: environment, sockets: sockets, logger: logger)
            defer { manager.close() }
            let gateway = try GatewayServer(loop: loop, settings: settings, logger: logger, manager: manager)
            try gateway.start()
            if case .byDefault(let path) = settings.authentication { FirstSteps.show(agentsFile: path, logger) }
            // Keep the gateway until the loop ends: when the last listener is closed, withdrawals may still be running.
            withExtendedLifetime(gateway) { loop.run() }
        } catch let errors as SettingsErrors {
            StartErrors.report(errors, logger)
            throw ExitCode((errors.areOfCommandLine ? GatewayError.Kind.usage : .configuration).rawValue)
        } catch let error as GatewayError {
            // For an agents file there may be many lines.
            for line in error.description.split(separator: "\n") { logger.error("\(Secrets.hidden(in: String(line)))") }
            throw ExitCode(error.kind.rawValue)
        }
    }
}
