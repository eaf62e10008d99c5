internal import Wire

/// How a gateway is to run: the command line over the configuration file over the defaults.
package struct GatewaySettings: Sendable {
    package enum Authentication: Equatable, Sendable {
        /// By the file as soon as it exists; until then every agent, from loopback addresses only.
        case byDefault(agentsFile: String)
        /// Every agent from everywhere: written out by the operator.
        case open
        /// By the file, which must be there.
        case file(String)
        case hook(HookSettings)

        /// How a status shows it.
        package var description: String {
            switch self {
            case .byDefault(let path): FileAccess.exists(path) ? "file \(path)" : "agents of this machine"
            case .open: "open to everybody"
            case .file(let path): "file \(path)"
            case .hook(.exec(let exec)): "exec \(exec.command[0])"
            case .hook(.webhook(let webhook)): "webhook \(webhook.shownURL)"
            }
        }
    }

    /// Where agents connect; the defaults are allowed to lack IPv6.
    package let listen: [HostPort]
    package let listensByDefault: Bool
    /// Where agents of protocol version 1 connect; on loopback addresses unless the operator wrote out otherwise.
    package let listenVersion1: [HostPort]
    /// Whether the operator wrote that out.
    package let allowsInsecureVersion1: Bool
    package let debug: Int
    package let logFormat: LogFormat
    /// Write a line to the log for each stream that is over.
    package let logsStreams: Bool
    package let stateDirectory: String
    package let exposeBind: [String]
    package let exposePorts: PublicPorts
    /// Nil: names have no unix sockets.
    package let exposeSockets: SocketSettings?
    /// What agents are told of where a name is, with `{name}` in it; nil: the address of the public port.
    package let publicURL: String?
    /// For whose addresses penalties and the bounds of one source do not hold.
    package let trustedNetworks: [Network]
    package let authentication: Authentication
    /// Besides `print`, which is always there.
    package let registrars: [RegistrarSettings]
    /// Publish a name only when its backend answers.
    package let probesBackends: Bool
    /// A certificate of a public authority, instead of the gateway's own.
    package let tlsFiles: (certificate: String, key: String)?
    /// From where visitors' connections begin with a PROXY header, which is believed.
    package let proxies: [Network]
    /// The same for connections to the unix sockets of names.
    package let socketsAreProxied: Bool
    /// Nil: they are shown nowhere.
    package let metrics: MetricsSettings?
    package let control: ControlSettings?
    package let limits: LimitSettings

    /// Public port and unix socket, or one of them.
    package var listenersPerName: Int {
        (self.exposePorts == .none ? 0 : self.exposeBind.count) + (self.exposeSockets == nil ? 0 : 1)
    }

    /// Finds everything that is wrong, not only the first of it.
    package init(_ options: GatewayOptions) throws(SettingsErrors) {
        let problems = Problems()
        self.init(options, problems)
        try problems.throwIfAny()
    }

    /// Reads the settings also where something is wrong with them, and tells what a start would need besides.
    ///
    /// What could not be read is something harmless in the settings.
    package static func examine(
        _ options: GatewayOptions
    ) -> (settings: GatewaySettings, problems: [SettingsError], needs: [StartNeed]) {
        let problems = Problems()
        let settings = GatewaySettings(options, problems)
        return (settings, problems.found, problems.needs)
    }

    private init(_ options: GatewayOptions, _ problems: Problems) {
        let reader = GatewaySettingsReader(options, problems)
        self.listensByDefault = reader.listen.isEmpty
        self.listen = reader.addresses(
            reader.listen.isEmpty ? ["0.0.0.0:20000", "[::]:20000"] : reader.listen,
            place: reader.place("listen", !options.listen.isEmpty))
        self.allowsInsecureVersion1 = reader.boolean("v1-insecure-ok") ?? false || options.allowsInsecureVersion1
        self.listenVersion1 = reader.version1Addresses(isAllowed: self.allowsInsecureVersion1)
        self.debug = reader.debug()
        self.logFormat = reader.logFormat()
        self.logsStreams = reader.boolean("log-streams") ?? false || options.logsStreams
        var stateDirectory = ""
        problems.attempt { () throws(SettingsError) in
            stateDirectory = try StateDirectory.path(
                reader.path("state-dir", or: options.stateDirectory), program: "diglett-server")
            problems.need(
                .stateDirectory(stateDirectory), at: reader.place("state-dir", options.stateDirectory != nil))
        }
        self.stateDirectory = stateDirectory
        self.exposeBind = reader.exposeBind()
        let ports = reader.exposePorts()
        let sockets = reader.exposeSockets(ports)
        self.exposePorts = ports
        self.exposeSockets = sockets
        self.publicURL = reader.publicURL()
        self.trustedNetworks = reader.trustedNetworks()
        self.authentication = reader.authentication(stateDirectory) ?? .open
        self.registrars = reader.registrars(ExposurePaths(hasPorts: ports != .none, hasSockets: sockets != nil))
        self.probesBackends = reader.boolean("probe") ?? false
        self.tlsFiles = reader.tlsFiles()
        (self.proxies, self.socketsAreProxied) = reader.proxies(sockets)
        self.metrics = reader.metrics()
        self.control = reader.control(stateDirectory)
        self.limits = LimitSettings(reader.table("limits"), problems)
        reader.section?.finish(problems)
    }

    /// Where the control socket of the gateway that these options name may be, the likeliest first.
    package static func controlPlaces(_ options: GatewayOptions) throws(SettingsErrors) -> ControlSettings.Places {
        let problems = Problems()
        let reader = GatewaySettingsReader(options, problems)
        // Who asks may be a user that has no directory of its own.
        let named = options.stateDirectory ?? reader.path("state-dir")
        let directory = try? StateDirectory.path(named, program: "diglett-server")
        let given = options.control ?? reader.text("control")
        try problems.throwIfAny()
        return ControlSettings.Places(
            paths: ControlSettings.places(given, stateDirectory: directory, isNamed: named != nil),
            given: given)
    }

    /// Where the control socket of a gateway with these agents may be: where the file belongs to a state directory, no
    /// other gateway is meant.
    package func controlPlaces(
        _ options: GatewayOptions, agentsFile: String
    ) throws(SettingsErrors) -> ControlSettings.Places {
        var options = options
        if agentsFile == Self.agentsFile(in: self.stateDirectory) { options.stateDirectory = self.stateDirectory }
        return try Self.controlPlaces(options)
    }

    /// Where the agents stand unless another file is named.
    package static func agentsFile(in stateDirectory: String) -> String {
        ServiceCredentials.path(of: "agents.toml") ?? "\(stateDirectory)/agents.toml"
    }
}
