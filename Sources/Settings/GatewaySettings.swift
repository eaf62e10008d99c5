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
    package let exposeBind: String
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
    package var listenersPerName: Int { self.exposeSockets != nil && self.exposePorts != .none ? 2 : 1 }

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
        let reader = Reader(options, problems)
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
                reader.text("state-dir", or: options.stateDirectory), program: "diglett-server")
            problems.need(
                .stateDirectory(stateDirectory), at: reader.place("state-dir", options.stateDirectory != nil))
        }
        self.stateDirectory = stateDirectory
        self.exposeBind = reader.text("expose-bind", or: options.exposeBind) ?? "127.0.0.1"
        problems.need(.address(self.exposeBind), at: reader.place("expose-bind", options.exposeBind != nil))
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
        let reader = Reader(options, problems)
        // Who asks may be a user that has no directory of its own.
        let named = options.stateDirectory ?? reader.text("state-dir")
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

/// Reads the settings one by one; what is wrong goes to `problems`, and something harmless takes its place.
private struct Reader {
    let options: GatewayOptions
    let problems: Problems
    let section: TOMLFile.Section?
    let listen: [String]

    init(_ options: GatewayOptions, _ problems: Problems) {
        self.options = options
        self.problems = problems
        var section: TOMLFile.Section?
        var listen = options.listen
        problems.attempt { () throws(SettingsError) in
            if let path = options.configuration { section = try TOMLFile(path: path).root }
        }
        problems.takesNeeds = section != nil || options.configuration == nil
        problems.attempt { () throws(SettingsError) in
            let given = try section?.strings("listen") ?? []
            if listen.isEmpty { listen = given }
        }
        self.section = section
        self.listen = listen
    }

    func place(_ option: String, _ isOption: Bool) -> String {
        isOption ? "option --\(option)" : self.section?.place(of: option) ?? "option --\(option)"
    }

    /// - Parameter option: wins, but the key is read all the same, as one that nobody reads counts as unknown.
    func text(_ key: String, or option: String? = nil) -> String? {
        var text: String?
        self.problems.attempt { () throws(SettingsError) in text = try self.section?.string(key) }
        return option ?? text
    }

    func boolean(_ key: String) -> Bool? {
        var value: Bool?
        self.problems.attempt { () throws(SettingsError) in value = try self.section?.boolean(key) }
        return value
    }

    func table(_ key: String) -> TOMLFile.Section? {
        self.problems.value(nil) { () throws(SettingsError) in try self.section?.section(key) }
    }

    func addresses(_ texts: [String], place: String) -> [HostPort] {
        texts.compactMap { text in
            if let address = HostPort(text) {
                self.problems.listener(address, at: place)
                return address
            }
            self.problems.add(place, "'\(text)' is no address: write HOST:PORT or [IPV6]:PORT")
            return nil
        }
    }

    func version1Addresses(isAllowed: Bool) -> [HostPort] {
        var given: [String] = []
        self.problems.attempt { () throws(SettingsError) in given = try self.section?.strings("listen-v1") ?? [] }
        let texts = self.options.listenVersion1.isEmpty ? given : self.options.listenVersion1
        let place = self.place("listen-v1", !self.options.listenVersion1.isEmpty)
        let addresses = self.addresses(texts, place: place)
        if !isAllowed {
            for address in addresses where !address.isLoopback {
                self.problems.add(
                    place,
                    "\(address) is no loopback address, and version 1 is not safe on a network: nothing in it is "
                        + "authenticated; let agents come through a tunnel of their own, or write out v1-insecure-ok")
            }
        }
        return addresses
    }

    func debug() -> Int {
        var debug = self.options.debug
        self.problems.attempt { () throws(SettingsError) in
            debug = max(debug, try self.section?.debug() ?? 0)
        }
        if !(0...9).contains(debug) {
            self.problems.add(self.place("debug", true), "'debug' must be a number from 0 to 9")
        }
        return debug
    }

    func logFormat() -> LogFormat {
        let given = self.text("log-format", or: self.options.logFormat)
        var format = LogFormat.text
        self.problems.attempt { () throws(SettingsError) in
            guard let text = given else { return }
            format = try LogFormat(text, place: self.place("log-format", self.options.logFormat != nil))
        }
        return format
    }

    func exposePorts() -> PublicPorts {
        let given = self.text("expose-ports")
        var ports = PublicPorts.any
        self.problems.attempt { () throws(SettingsError) in
            guard let text = self.options.exposePorts ?? given else { return }
            ports = try PublicPorts(text, place: self.place("expose-ports", self.options.exposePorts != nil))
        }
        return ports
    }

    func exposeSockets(_ ports: PublicPorts) -> SocketSettings? {
        let given = (directory: self.text("expose-sockets"), group: self.text("expose-sockets-group"))
        let place = self.place("expose-sockets", self.options.exposeSockets != nil)
        let groupPlace = self.place("expose-sockets-group", self.options.exposeSocketsGroup != nil)
        let group = self.options.exposeSocketsGroup ?? given.group
        guard let directory = self.options.exposeSockets ?? given.directory else {
            if group != nil { self.problems.add(groupPlace, "has no meaning without expose-sockets") }
            if ports == .none {
                self.problems.add(
                    self.place("expose-ports", self.options.exposePorts != nil),
                    "with 'none', names need unix sockets: set expose-sockets")
            }
            return nil
        }
        var sockets: SocketSettings?
        self.problems.attempt { () throws(SettingsError) in
            sockets = try SocketSettings(directory: directory, group: group, place: place, groupPlace: groupPlace)
            self.problems.need(.ownDirectory(directory), at: place)
        }
        return sockets
    }

    func publicURL() -> String? {
        guard let text = self.text("public-url") else { return nil }
        let example = text.replacing("{name}", with: "name")
        let isURL = text.hasPrefix("http://") || text.hasPrefix("https://")
        do throws(WebURL.Mistake) { if isURL { _ = try WebURL(example) } } catch {
            self.problems.add(self.place("public-url", false), "'\(WebURL.shown(text))': \(error.reason)")
            return nil
        }
        // Agents pass nothing else on to scripts.
        guard text.contains("{name}"), text.utf8.count <= 300, PublicAddress(example) != nil else {
            self.problems.add(
                self.place("public-url", false),
                "'\(PeerText.escaped(WebURL.shown(text)))' is not \(PublicAddress.form) with {name} in it: "
                    + "write https://{name}.gateway.example.com for example")
            return nil
        }
        return text
    }

    /// Nil when it cannot be told.
    func authentication(_ stateDirectory: String) -> GatewaySettings.Authentication? {
        let given = (auth: self.text("auth"), file: self.text("agents-file"))
        let file = self.options.agentsFile ?? given.file
        let standard = GatewaySettings.agentsFile(in: stateDirectory)
        let kind = self.options.auth ?? given.auth
        let place = self.place("auth", self.options.auth != nil)
        var hooks: [String: TOMLFile.Section] = [:]
        self.problems.attempt { () throws(SettingsError) in
            for kind in ["exec", "webhook"] { hooks[kind] = try self.section?.section("auth-\(kind)") }
        }
        for (name, _) in hooks where name != kind {
            self.problems.add(self.place("auth-\(name)", false), "has no meaning without auth = \"\(name)\"")
        }
        if file != nil, let kind, kind != "file" {
            self.problems.add(
                self.place("agents-file", self.options.agentsFile != nil), "has no meaning with auth '\(kind)'")
        }
        switch kind {
        case nil: return file.map { .file($0) } ?? .byDefault(agentsFile: standard)
        case "file": return .file(file ?? standard)
        case "open": return .open
        case .some(let kind) where kind == "exec" || kind == "webhook":
            guard let section = hooks[kind] else {
                self.problems.add(place, "needs a table [auth-\(kind)] in the configuration file")
                return nil
            }
            return .hook(self.hook(kind, section))
        case .some(let other):
            self.problems.add(
                place, "'\(other)' is no way to know agents: there are file, exec, webhook and open")
            return nil
        }
    }

    private func hook(_ kind: String, _ section: TOMLFile.Section) -> HookSettings {
        let hook: HookSettings =
            kind == "exec"
            ? .exec(ExecSettings(section, self.problems)) : .webhook(WebhookSettings(section, self.problems))
        section.finish(self.problems)
        return hook
    }

    func registrars(_ paths: ExposurePaths) -> [RegistrarSettings] {
        let sections = self.problems.value([]) { () throws(SettingsError) in
            try self.section?.sections("registrar") ?? []
        }
        var result: [RegistrarSettings] = []
        // Where each target was named first.
        var places: [String: String] = [:]
        for section in sections {
            guard let registrar = RegistrarSettings(section, paths, self.problems) else { continue }
            result.append(registrar)
            for (key, value) in registrar.targets {
                // A default stands nowhere.
                let isGiven = self.problems.value(false) { () throws(SettingsError) in try section.string(key) != nil }
                let place = section.place(of: isGiven ? key : "kind")
                if let first = places["\(key) \(value)"] {
                    self.problems.add(
                        place,
                        "the registrar at \(first) has this '\(key)' already (\(PeerText.escaped(value))), "
                            + "and each would take back what the other publishes")
                } else {
                    places["\(key) \(value)"] = place
                }
            }
        }
        return result
    }

    func trustedNetworks() -> [Network] {
        var networks: [Network] = []
        self.problems.attempt { () throws(SettingsError) in
            for text in try self.section?.strings("trusted-networks") ?? [] {
                self.problems.attempt { () throws(SettingsError) in
                    networks.append(try Network(text, place: self.place("trusted-networks", false)))
                }
            }
        }
        return networks
    }

    /// The networks, and whether unix sockets are among them.
    func proxies(_ sockets: SocketSettings?) -> ([Network], Bool) {
        var given: [String] = []
        self.problems.attempt { () throws(SettingsError) in
            given = try self.section?.strings("accept-proxy-protocol") ?? []
        }
        let areOptions = !self.options.acceptProxyProtocol.isEmpty
        let place = self.place("accept-proxy-protocol", areOptions)
        var networks: [Network] = []
        var haveSockets = false
        for text in areOptions ? self.options.acceptProxyProtocol : given {
            self.problems.attempt { () throws(SettingsError) in
                guard text == "unix" else { return networks.append(try Network(text, place: place)) }
                guard sockets != nil else {
                    throw SettingsError(place, "'unix' has no meaning without expose-sockets")
                }
                haveSockets = true
            }
        }
        return (networks, haveSockets)
    }

    func metrics() -> MetricsSettings? {
        let isPerName = self.boolean("metrics-per-name") ?? false || self.options.metricsPerName
        let isOpen = self.boolean("metrics-insecure-ok") ?? false || self.options.allowsInsecureMetrics
        guard let text = self.text("metrics", or: self.options.metrics) else {
            if isPerName {
                self.problems.add(
                    self.place("metrics-per-name", self.options.metricsPerName), "has no meaning without metrics")
            }
            return nil
        }
        var metrics: MetricsSettings?
        self.problems.attempt { () throws(SettingsError) in
            metrics = try MetricsSettings(
                text, isPerName: isPerName, isOpen: isOpen,
                place: self.place("metrics", self.options.metrics != nil))
        }
        let place = self.place("metrics", self.options.metrics != nil)
        switch metrics?.place {
        case .unix(let path): self.problems.need(StartNeed.directory(of: path), at: place)
        case .tcp(let address): self.problems.listener(address, at: place)
        case nil: break
        }
        return metrics
    }

    func control(_ stateDirectory: String) -> ControlSettings? {
        let given = (path: self.text("control"), group: self.text("control-group"))
        var settings: ControlSettings?
        self.problems.attempt { () throws(SettingsError) in
            let place = self.place("control-group", self.options.controlGroup != nil)
            let group = try (self.options.controlGroup ?? given.group).map { text throws(SettingsError) in
                try Group.number(text, place: place)
            }
            settings = try ControlSettings(
                self.options.control ?? given.path, group: group, stateDirectory: stateDirectory,
                place: self.place("control", self.options.control != nil))
        }
        // The service's own directory is there only while it runs (systemd.exec(5), RuntimeDirectory=).
        if let settings, settings.isExplicit, let path = settings.path, !ControlSettings.isOfService(path) {
            self.problems.need(StartNeed.directory(of: path), at: self.place("control", self.options.control != nil))
        }
        return settings
    }

    func tlsFiles() -> (certificate: String, key: String)? {
        let given = (certificate: self.text("tls-cert"), key: self.text("tls-key"))
        switch (self.options.tlsCertificate ?? given.certificate, self.options.tlsKey ?? given.key) {
        case (nil, nil): return nil
        case (.some(let certificate), .some(let key)):
            self.problems.need(
                .identity(certificate: certificate, key: key),
                at: self.place("tls-cert", self.options.tlsCertificate != nil))
            return (certificate, key)
        case (.some, nil):
            self.problems.add(self.place("tls-cert", self.options.tlsCertificate != nil), "needs tls-key as well")
        case (nil, .some):
            self.problems.add(self.place("tls-key", self.options.tlsKey != nil), "needs tls-cert as well")
        }
        return nil
    }
}
