internal import Wire

/// Reads the settings of a gateway one by one. Mistakes go to `problems`, and a harmless value takes their place.
struct GatewaySettingsReader {
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

    /// The same for a path: of the file, it is relative to the file's directory.
    func path(_ key: String, or option: String? = nil) -> String? {
        var path: String?
        self.problems.attempt { () throws(SettingsError) in path = try self.section?.path(key) }
        return option ?? path
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
        let given = self.texts("listen-v1")
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

    /// More listeners than that for each name are a mistake.
    private static let maxHosts = 16

    func exposeBind() -> [String] {
        let given = self.texts("expose-bind")
        let areOptions = !self.options.exposeBind.isEmpty
        let hosts = areOptions ? self.options.exposeBind : given
        let place = self.place("expose-bind", areOptions)
        for (index, host) in hosts.enumerated() {
            if hosts[..<index].contains(host) {
                self.problems.add(place, "'\(PeerText.escaped(host))' is there twice")
            } else {
                self.problems.need(.address(host), at: place)
            }
        }
        if hosts.count > Self.maxHosts { self.problems.add(place, "has at most \(Self.maxHosts) addresses") }
        return hosts.isEmpty ? ["127.0.0.1"] : hosts
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
        let given = (auth: self.text("auth"), file: self.path("agents-file"))
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
        self.texts("trusted-networks").compactMap { self.network($0, place: self.place("trusted-networks", false)) }
    }

    /// The networks, and whether unix sockets are among them.
    func proxies(_ sockets: SocketSettings?) -> ([Network], Bool) {
        let given = self.texts("accept-proxy-protocol")
        let areOptions = !self.options.acceptProxyProtocol.isEmpty
        let texts = areOptions ? self.options.acceptProxyProtocol : given
        let place = self.place("accept-proxy-protocol", areOptions)
        let haveSockets = texts.contains("unix")
        if haveSockets, sockets == nil { self.problems.add(place, "'unix' has no meaning without expose-sockets") }
        let networks = texts.filter { $0 != "unix" }.compactMap { self.network($0, place: place) }
        return (networks, haveSockets && sockets != nil)
    }

    private func texts(_ key: String) -> [String] {
        self.problems.value([]) { () throws(SettingsError) in try self.section?.strings(key) ?? [] }
    }

    private func network(_ text: String, place: String) -> Network? {
        self.problems.value(nil) { () throws(SettingsError) in try Network(text, place: place) }
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
        let given = (certificate: self.path("tls-cert"), key: self.path("tls-key"))
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
