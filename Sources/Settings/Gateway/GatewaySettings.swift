internal import Wire

/// The settings of a gateway. The command line takes precedence over the configuration file, and both over the
/// defaults.
package struct GatewaySettings: Sendable {
    package enum Authentication: Equatable, Sendable {
        /// The agents file once it exists; until then every agent, from loopback addresses only.
        case byDefault(agentsFile: String)
        /// Every agent from anywhere; the operator set this explicitly.
        case open
        /// The agents file, which must exist.
        case file(String)
        case hook(HookSettings)

        /// The text in the status.
        package var description: String {
            switch self {
            case .byDefault(let path): FileAccess.exists(path) ? "file \(path)" : "local agents only"
            case .open: "every agent"
            case .file(let path): "file \(path)"
            case .hook(.exec(let exec)): "exec \(exec.command[0])"
            case .hook(.webhook(let webhook)): "webhook \(webhook.shownURL)"
            }
        }
    }

    /// Addresses for agents. With the defaults, IPv6 may be unavailable.
    package let listen: [HostPort]
    package let listensByDefault: Bool
    /// Addresses for agents of protocol version 1: loopback addresses, unless the operator allowed others.
    package let listenVersion1: [HostPort]
    /// Whether the operator allowed other addresses.
    package let allowsInsecureVersion1: Bool
    package let debug: Int
    package let logFormat: LogFormat
    /// Whether to log a line for each stream that has ended.
    package let logsStreams: Bool
    package let stateDirectory: String
    package let exposeBind: [String]
    package let exposePorts: PublicPorts
    /// Nil if names have no unix sockets.
    package let exposeSockets: SocketSettings?
    /// The address of a name that agents receive, with `{name}` in it; nil for the address of the public port.
    package let publicURL: String?
    /// Networks whose addresses are exempt from penalties and from the limits of one source.
    package let trustedNetworks: [Network]
    package let authentication: Authentication
    /// In addition to `print`, which is always active.
    package let registrars: [RegistrarSettings]
    /// Whether to publish a name only when its backend accepts connections.
    package let probesBackends: Bool
    /// PEM files of a certificate by a public authority and its key; nil for the gateway's own certificate.
    package let tlsFiles: (certificate: String, key: String)?
    /// Trusted proxies: connections from these networks begin with a PROXY header, which is believed.
    package let proxies: [Network]
    /// Whether connections to the unix sockets of names begin with a PROXY header too.
    package let socketsAreProxied: Bool
    /// Nil if no metrics are served.
    package let metrics: MetricsSettings?
    package let control: ControlSettings?
    package let limits: LimitSettings

    /// The listeners of one name: one for its public port on each address, and one for its unix socket.
    package var listenersPerName: Int {
        // Having neither is a configuration error; it still counts as one.
        max((self.exposePorts == .none ? 0 : self.exposeBind.count) + (self.exposeSockets == nil ? 0 : 1), 1)
    }

    /// Throws all errors, not only the first.
    package init(_ options: CommandOptions) throws(SettingsErrors) {
        let problems = Problems()
        self.init(options, problems)
        try problems.throwIfAny()
    }

    /// Reads settings that may have errors, and lists what else a start needs. Harmless values replace invalid ones.
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

    /// The possible paths of the control socket of the gateway that these options name, the likeliest first.
    package static func controlPlaces(_ options: CommandOptions) throws(SettingsErrors) -> ControlSettings.Places {
        let problems = Problems()
        let gateway = GatewaySettingsReader(options, problems)
        // The caller may be a user without a directory of its own.
        let named = gateway.reader.value(gateway.keys.stateDir)
        let directory = try? StateDirectory.path(named, program: "diglett-server")
        let given = gateway.reader.value(gateway.keys.control)
        try problems.throwIfAny()
        return ControlSettings.Places(
            paths: ControlSettings.places(given, stateDirectory: directory, isNamed: named != nil),
            given: given)
    }

    /// The possible paths of the control socket of a gateway with this agents file. If the file is in the state
    /// directory, only the gateway of that directory is meant.
    package func controlPlaces(
        _ options: CommandOptions, agentsFile: String
    ) throws(SettingsErrors) -> ControlSettings.Places {
        var options = options
        if agentsFile == Self.agentsFile(in: self.stateDirectory) {
            options[GatewayKeys.keys.stateDir] = [self.stateDirectory]
        }
        return try Self.controlPlaces(options)
    }

    /// The path of the agents file unless another one is set.
    package static func agentsFile(in stateDirectory: String) -> String {
        ServiceCredentials.path(of: "agents.toml") ?? "\(stateDirectory)/agents.toml"
    }
}
