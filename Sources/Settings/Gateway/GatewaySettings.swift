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
        // With neither, an error, it counts one all the same.
        max((self.exposePorts == .none ? 0 : self.exposeBind.count) + (self.exposeSockets == nil ? 0 : 1), 1)
    }

    /// Finds everything that is wrong, not only the first of it.
    package init(_ options: CommandOptions) throws(SettingsErrors) {
        let problems = Problems()
        self.init(options, problems)
        try problems.throwIfAny()
    }

    /// Reads settings that may have errors, and lists what a start needs besides. A bad value is replaced by a harmless one.
    package static func examine(
        _ options: CommandOptions
    ) -> (settings: GatewaySettings, problems: [SettingsError], needs: [StartNeed]) {
        let problems = Problems()
        let settings = GatewaySettings(options, problems)
        return (settings, problems.found, problems.needs)
    }

    private init(_ options: CommandOptions, _ problems: Problems) {
        let gateway = GatewaySettingsReader(options, problems)
        let (reader, keys) = (gateway.reader, gateway.keys)
        (self.listen, self.listensByDefault) = gateway.listen()
        self.allowsInsecureVersion1 = reader.value(keys.v1InsecureOk)
        self.listenVersion1 = gateway.listenVersion1(isAllowed: self.allowsInsecureVersion1)
        self.debug = reader.value(keys.debug)
        self.logFormat = reader.value(keys.logFormat)
        self.logsStreams = reader.value(keys.logStreams)
        self.stateDirectory = gateway.stateDirectory()
        self.exposeBind = gateway.exposeBind()
        self.exposePorts = reader.value(keys.exposePorts)
        self.exposeSockets = gateway.exposeSockets(self.exposePorts)
        self.publicURL = gateway.publicURL()
        self.trustedNetworks = reader.value(keys.trustedNetworks)
        self.authentication = gateway.authentication(self.stateDirectory) ?? .open
        self.registrars = gateway.registrars(
            ExposurePaths(hasPorts: self.exposePorts != .none, hasSockets: self.exposeSockets != nil))
        self.probesBackends = reader.value(keys.probe)
        self.tlsFiles = gateway.tlsFiles()
        (self.proxies, self.socketsAreProxied) = gateway.proxies(self.exposeSockets)
        self.metrics = gateway.metrics()
        self.control = gateway.control(self.stateDirectory)
        self.limits = reader.value(keys.limits).map { LimitSettings(SettingsReader($0, problems)) } ?? LimitSettings()
        reader.finish(GatewayKeys.self)
    }

    /// Where the control socket of the gateway that these options name may be, the likeliest first.
    package static func controlPlaces(_ options: CommandOptions) throws(SettingsErrors) -> ControlSettings.Places {
        let problems = Problems()
        let gateway = GatewaySettingsReader(options, problems)
        // Who asks may be a user that has no directory of its own.
        let named = gateway.reader.value(gateway.keys.stateDir)
        let directory = try? StateDirectory.path(named, program: "diglett-server")
        let given = gateway.reader.value(gateway.keys.control)
        try problems.throwIfAny()
        return ControlSettings.Places(
            paths: ControlSettings.places(given, stateDirectory: directory, isNamed: named != nil),
            given: given)
    }

    /// Where the control socket of a gateway with these agents may be: where the file belongs to a state directory, no
    /// other gateway is meant.
    package func controlPlaces(
        _ options: CommandOptions, agentsFile: String
    ) throws(SettingsErrors) -> ControlSettings.Places {
        var options = options
        if agentsFile == Self.agentsFile(in: self.stateDirectory) {
            options[GatewayKeys.keys.stateDir] = [self.stateDirectory]
        }
        return try Self.controlPlaces(options)
    }

    /// Where the agents stand unless another file is named.
    package static func agentsFile(in stateDirectory: String) -> String {
        ServiceCredentials.path(of: "agents.toml") ?? "\(stateDirectory)/agents.toml"
    }
}
