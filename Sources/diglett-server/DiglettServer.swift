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
        abstract: "Makes services behind NAT reachable: the public gateway of diglett.",
        discussion: """
            Agents (the program 'diglett') connect to this gateway and register names; for each name the gateway \
            opens a public port and carries every connection to it through the agent to the service beside it.

            Without --auth the gateway knows agents by its agents file, which 'diglett-server agent add' makes; as \
            long as there is none, it takes agents of its own machine only.

            Exit codes: 0 stopped, 64 bad argument, 71 an address cannot be listened on, 73 the state directory \
            cannot be used, 78 bad configuration. 'diglett-server explain 71' says what to do.
            """,
        version: "diglett-server \(Release.version)",
        subcommands: [AgentCommand.self, CheckCommand.self, ControlCommand.self, ExplainCommand.self]
    )

    @Option(
        name: .shortAndLong,
        help: ArgumentHelp(
            "Where to listen for agents; may be repeated. (default: 0.0.0.0:20000 and [::]:20000)",
            valueName: "host:port"))
    var listen: [String] = []

    @Option(
        name: .customLong("listen-v1"),
        help: ArgumentHelp(
            "Where to listen for agents of protocol version 1, of the original diglett; may be repeated. "
                + "(default: nowhere)", valueName: "host:port"))
    var listenVersion1: [String] = []

    @Flag(
        name: .customLong("v1-insecure-ok"),
        help: "Let --listen-v1 listen on more than loopback addresses, though version 1 authenticates nothing.")
    var allowsInsecureVersion1 = false

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
            "Where to keep key and ports. (default: $STATE_DIRECTORY, /var/lib/diglett-server or below ~/.local/state)",
            valueName: "dir"),
        completion: .directory)
    var stateDir: String?

    @Option(
        help: ArgumentHelp(
            "On which address names are public, '::' for all of both families; may be repeated. (default: 127.0.0.1)",
            valueName: "host"))
    var exposeBind: [String] = []

    @Option(
        help: ArgumentHelp(
            "Which public ports names may have; 'none' for names with unix sockets only. (default: any)",
            valueName: "low-high|none"))
    var exposePorts: String?

    @Option(
        help: ArgumentHelp(
            "Give each name a unix socket, DIR/NAME.sock, for a proxy on this machine. (default: none)",
            valueName: "dir"))
    var exposeSockets: String?

    @Option(help: ArgumentHelp("The group that may connect to these sockets. (default: none)", valueName: "group"))
    var exposeSocketsGroup: String?

    @Option(
        help: ArgumentHelp(
            "How agents are known: 'file' by the agents file, 'open' takes any agent from anywhere. "
                + "(default: by the agents file once it exists, until then agents of this machine)",
            valueName: "file|open"),
        completion: .list(["file", "open"]))
    var auth: String?

    @Option(
        help: ArgumentHelp("Where the agents stand. (default: agents.toml in the state directory)", valueName: "file"),
        completion: .file())
    var agentsFile: String?

    @Option(
        help: ArgumentHelp(
            "A certificate of a public authority (PEM, with its chain); a renewed file is used without a restart. "
                + "(default: a generated key; agents check its pin)", valueName: "file"),
        completion: .file())
    var tlsCert: String?

    @Option(help: ArgumentHelp("The key of that certificate.", valueName: "file"), completion: .file())
    var tlsKey: String?

    @Option(
        name: .customLong("accept-proxy-protocol"),
        help: ArgumentHelp(
            "Trusted proxies, which send the addresses of visitors and agents in PROXY headers; may be repeated. "
                + "(default: none)", valueName: "network|unix"))
    var acceptProxyProtocol: [String] = []

    @Option(
        help: ArgumentHelp(
            "Where to show metrics to Prometheus, http://HOST:PORT/metrics. (default: nowhere)",
            valueName: "host:port|unix:path"))
    var metrics: String?

    @Flag(name: .customLong("metrics-per-name"), help: "Show metrics of each name, too.")
    var metricsPerName = false

    @Flag(
        name: .customLong("metrics-insecure-ok"),
        help: "Let --metrics listen on more than loopback addresses, though everybody can read what is shown there.")
    var allowsInsecureMetrics = false

    @Option(
        help: ArgumentHelp(
            "Where 'diglett-server ctl' finds the gateway, a unix socket. (default: control.sock in the runtime "
                + "directory or the state directory)", valueName: "path|none"))
    var control: String?

    @Option(
        help: ArgumentHelp(
            "The group that may use it. (default: none, only the gateway's user and root)", valueName: "group"))
    var controlGroup: String?

    /// What the command line says, for the gateway and for its subcommands.
    var options: GatewayOptions {
        var options = GatewayOptions()
        options.listen = self.listen
        options.listenVersion1 = self.listenVersion1
        options.allowsInsecureVersion1 = self.allowsInsecureVersion1
        options.debug = self.debug
        options.logFormat = self.logFormat
        options.logsStreams = self.logStreams
        options.configuration = self.configurationFile
        options.stateDirectory = self.stateDir
        options.exposeBind = self.exposeBind
        options.exposePorts = self.exposePorts
        options.exposeSockets = self.exposeSockets
        options.exposeSocketsGroup = self.exposeSocketsGroup
        options.auth = self.auth
        options.agentsFile = self.agentsFile
        options.tlsCertificate = self.tlsCert
        options.tlsKey = self.tlsKey
        options.acceptProxyProtocol = self.acceptProxyProtocol
        options.metrics = self.metrics
        options.metricsPerName = self.metricsPerName
        options.allowsInsecureMetrics = self.allowsInsecureMetrics
        options.control = self.control
        options.controlGroup = self.controlGroup
        return options
    }

    static func main() { Program.run(Self.self, Array(CommandLine.arguments.dropFirst())) }

    mutating func run() throws {
        // Before anything is started that could inherit it.
        let environment = ServiceEnvironment.take()
        let sockets = InheritedSockets(names: environment.socketNames)
        var known: Logger?
        /// Of the settings; when they are what is wrong, as far as they can be told.
        var logger: Logger {
            known
                ?? Journal.logger(
                    debug: self.debug,
                    format: .wanted(option: self.logFormat, configuration: self.configurationFile))
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
            // It is needed to the end: what is being withdrawn is not done when the last listener is closed.
            withExtendedLifetime(gateway) { loop.run() }
        } catch let errors as SettingsErrors {
            for error in errors.all { logger.error("\(Secrets.hidden(in: "\(error)"))") }
            let isArgument = errors.all.allSatisfy { $0.place.hasPrefix("option ") }
            throw ExitCode((isArgument ? GatewayError.Kind.usage : .configuration).rawValue)
        } catch let error as GatewayError {
            logger.error("\(Secrets.hidden(in: "\(error)"))")
            throw ExitCode(error.kind.rawValue)
        }
    }
}
