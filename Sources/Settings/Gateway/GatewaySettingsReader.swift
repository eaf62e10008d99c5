internal import Wire

/// Reads the settings of a gateway that depend on several keys or on the system. Errors are added to `problems`, and a
/// harmless value is used instead.
struct GatewaySettingsReader {
    let reader: SettingsReader
    let keys = GatewayKeys.keys

    private var problems: Problems { self.reader.problems }

    init(_ options: CommandOptions, _ problems: Problems) { self.reader = SettingsReader(options, problems) }

    func listen() -> (addresses: [HostPort], areDefault: Bool) {
        let given = self.reader.value(self.keys.listen)
        let standard = ["0.0.0.0", "::"].map { HostPort(host: $0, port: WireConstant.defaultPort) }
        return (self.needed(given.isEmpty ? standard : given, self.keys.listen), given.isEmpty)
    }

    func listenVersion1(isAllowed: Bool) -> [HostPort] {
        let addresses = self.needed(self.reader.value(self.keys.listenV1), self.keys.listenV1)
        for address in addresses where !isAllowed && !address.isLoopback {
            self.reader.add(
                self.keys.listenV1,
                "\(address) is not a loopback address, and version 1 is not safe on a network: nothing in it is "
                    + "authenticated; use another tunnel for these agents, or set v1-insecure-ok")
        }
        return addresses
    }

    private func needed(_ addresses: [HostPort], _ key: Key<[HostPort]>) -> [HostPort] {
        for address in addresses { self.problems.listener(address, at: self.reader.place(of: key)) }
        return addresses
    }

    /// Empty on an error.
    func stateDirectory() -> String {
        let given = self.reader.value(self.keys.stateDir)
        return self.problems.value("") { () throws(SettingsError) in
            let directory = try StateDirectory.path(given, program: "diglett-server")
            self.problems.need(.stateDirectory(directory), at: self.reader.place(of: self.keys.stateDir))
            return directory
        }
    }

    /// More listeners per name than this are a mistake.
    private static let maxHosts = 16

    func exposeBind() -> [String] {
        let hosts = self.reader.value(self.keys.exposeBind)
        let addresses = hosts.map { HostPort(host: $0, port: 0).canonical.host }
        for (index, host) in hosts.enumerated() {
            if addresses[..<index].contains(addresses[index]) {
                self.reader.add(self.keys.exposeBind, "'\(PeerText.escaped(host))' was given twice")
            } else if WireAddress(host: addresses[index].utf8, port: 0) == nil {
                self.reader.add(
                    self.keys.exposeBind,
                    "'\(PeerText.escaped(host))' is not an address: write 0.0.0.0, ::, an address of this machine or "
                        + "localhost")
            } else if self.reader.isGiven(self.keys.exposeBind) {
                self.problems.need(.address(host), at: self.reader.place(of: self.keys.exposeBind))
            }
        }
        if hosts.count > Self.maxHosts {
            self.reader.add(self.keys.exposeBind, "has at most \(Self.maxHosts) addresses")
        }
        return hosts.isEmpty ? self.keys.exposeBind.standard : hosts
    }

    /// The number of a group of this machine.
    private func group(_ key: Key<String?>) -> UInt32? {
        self.problems.value(nil) { () throws(SettingsError) in
            try self.reader.value(key).map { text throws(SettingsError) in
                try Group.number(text, place: self.reader.place(of: key))
            }
        }
    }

    func exposeSockets(_ ports: PublicPorts) -> SocketSettings? {
        let group = self.group(self.keys.exposeSocketsGroup)
        guard let directory = self.reader.value(self.keys.exposeSockets) else {
            // An invalid directory does not count as missing.
            guard !self.reader.isGiven(self.keys.exposeSockets) else { return nil }
            if self.reader.isGiven(self.keys.exposeSocketsGroup) {
                self.reader.add(self.keys.exposeSocketsGroup, "has no effect without expose-sockets")
            }
            if ports == .none {
                self.reader.add(self.keys.exposePorts, "with 'none', names need unix sockets: set expose-sockets")
            }
            return nil
        }
        let place = self.reader.place(of: self.keys.exposeSockets)
        return self.problems.value(nil) { () throws(SettingsError) in
            let sockets = try SocketSettings(directory: directory, group: group, place: place)
            self.problems.need(.ownDirectory(directory), at: place)
            return sockets
        }
    }

    func publicURL() -> String? {
        guard let text = self.reader.value(self.keys.publicURL) else { return nil }
        let example = text.replacing("{name}", with: "name")
        let isURL = text.hasPrefix("http://") || text.hasPrefix("https://")
        do throws(WebURL.Mistake) { if isURL { _ = try WebURL(example) } } catch {
            self.reader.add(self.keys.publicURL, "'\(WebURL.shown(text))': \(error.reason)")
            return nil
        }
        // Agents pass only valid public addresses on to scripts.
        guard text.contains("{name}"), text.utf8.count <= 300, PublicAddress(example) != nil else {
            self.reader.add(
                self.keys.publicURL,
                "'\(PeerText.escaped(WebURL.shown(text)))' is not \(PublicAddress.form) with {name} in it: "
                    + "write for example https://{name}.gateway.example.com")
            return nil
        }
        return text
    }

    /// Nil on an error.
    func authentication(_ stateDirectory: String) -> GatewaySettings.Authentication? {
        let file = self.reader.value(self.keys.agentsFile)
        let standard = GatewaySettings.agentsFile(in: stateDirectory)
        let kind = self.reader.value(self.keys.auth)
        let hooks = [("exec", self.keys.authExec), ("webhook", self.keys.authWebhook)].map { name, key in
            (name: name, key: key, section: self.reader.value(key))
        }
        // An option replaces the whole choice of the file. An invalid choice is reported below.
        let isChosenHere = !self.reader.isOption(self.keys.auth)
        let isKnown =
            kind.map { ["file", "open", "exec", "webhook"].contains($0) } ?? !self.reader.isGiven(self.keys.auth)
        for hook in hooks where isChosenHere && isKnown && hook.section != nil && hook.name != kind {
            self.reader.add(hook.key, "has no effect without auth = \"\(hook.name)\"")
        }
        if file != nil, let kind, isKnown, kind != "file", isChosenHere || self.reader.isOption(self.keys.agentsFile) {
            self.reader.add(self.keys.agentsFile, "has no effect with auth '\(kind)'")
        }
        switch kind {
        case nil: return file.map { .file($0) } ?? .byDefault(agentsFile: standard)
        case "file": return .file(file ?? standard)
        case "open": return .open
        case .some(let kind):
            guard let hook = hooks.first(where: { $0.name == kind }) else {
                self.reader.add(
                    self.keys.auth, "'\(kind)' is not a known authenticator: use file, exec, webhook or open")
                return nil
            }
            guard let section = hook.section else {
                if !self.reader.isGiven(hook.key) {
                    self.reader.add(self.keys.auth, "needs a table [auth-\(kind)] in the configuration file")
                }
                return nil
            }
            return .hook(HookSettings(kind: kind, SettingsReader(section, self.problems)))
        }
    }

    func registrars(_ paths: ExposurePaths) -> [RegistrarSettings] {
        var result: [RegistrarSettings] = []
        // The place where each target was first used.
        var places: [String: String] = [:]
        for section in self.reader.value(self.keys.registrar) {
            let known = self.problems.found.count
            guard let registrar = RegistrarSettings(SettingsReader(section, self.problems), paths) else { continue }
            result.append(registrar)
            // An invalid target was replaced by a default.
            guard self.problems.found.count == known else { continue }
            for (key, value) in registrar.targets {
                // A default has no line of its own.
                let place = section.place(of: section.has(key) ? key : RegistrarKeys.keys.kind.description.name)
                if let first = places["\(key) \(value)"] {
                    self.problems.add(
                        place,
                        "the registrar at \(first) has the same '\(key)' (\(PeerText.escaped(value))); "
                            + "each would remove what the other publishes")
                } else {
                    places["\(key) \(value)"] = place
                }
            }
        }
        return result
    }

    /// The networks, and whether unix sockets are included.
    func proxies(_ sockets: SocketSettings?) -> ([Network], Bool) {
        let texts = self.reader.value(self.keys.acceptProxyProtocol)
        let place = self.reader.place(of: self.keys.acceptProxyProtocol)
        let haveSockets = texts.contains("unix")
        if haveSockets, sockets == nil { self.problems.add(place, "'unix' has no effect without expose-sockets") }
        let networks = texts.filter { $0 != "unix" }.compactMap { text in
            self.problems.value(nil) { () throws(SettingsError) in try Network(text, place: place) }
        }
        return (networks, haveSockets && sockets != nil)
    }

    func metrics() -> MetricsSettings? {
        let isPerName = self.reader.value(self.keys.metricsPerName)
        let isOpen = self.reader.value(self.keys.metricsInsecureOk)
        guard let text = self.reader.value(self.keys.metrics) else {
            if isPerName, !self.reader.isGiven(self.keys.metrics) {
                self.reader.add(self.keys.metricsPerName, "has no effect without metrics")
            }
            return nil
        }
        let place = self.reader.place(of: self.keys.metrics)
        let metrics = self.problems.value(nil) { () throws(SettingsError) in
            try MetricsSettings(text, isPerName: isPerName, isOpen: isOpen, place: place)
        }
        switch metrics?.place {
        case .unix(let path): self.problems.need(StartNeed.directory(of: path), at: place)
        case .tcp(let address): self.problems.listener(address, at: place)
        case nil: break
        }
        return metrics
    }

    func control(_ stateDirectory: String) -> ControlSettings? {
        let (given, group) = (self.reader.value(self.keys.control), self.group(self.keys.controlGroup))
        let place = self.reader.place(of: self.keys.control)
        let settings = self.problems.value(nil) { () throws(SettingsError) in
            try ControlSettings(given, group: group, stateDirectory: stateDirectory, place: place)
        }
        // The service's own directory exists only while the service runs (systemd.exec(5), RuntimeDirectory=).
        if let settings, settings.isExplicit, let path = settings.path, !ControlSettings.isOfService(path) {
            self.problems.need(StartNeed.directory(of: path), at: place)
        }
        return settings
    }

    func tlsFiles() -> (certificate: String, key: String)? {
        switch (self.reader.value(self.keys.tlsCert), self.reader.value(self.keys.tlsKey)) {
        case (nil, nil): break
        case (.some(let certificate), .some(let key)):
            self.problems.need(
                .identity(certificate: certificate, key: key), at: self.reader.place(of: self.keys.tlsCert))
            return (certificate, key)
        case (.some, nil) where !self.reader.isGiven(self.keys.tlsKey):
            self.reader.add(self.keys.tlsCert, "needs tls-key as well")
        case (nil, .some) where !self.reader.isGiven(self.keys.tlsCert):
            self.reader.add(self.keys.tlsKey, "needs tls-cert as well")
        // An invalid value does not count as missing.
        case (.some, nil), (nil, .some): break
        }
        return nil
    }
}
