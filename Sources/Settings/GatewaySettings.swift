/// What the command line of `diglett-server` says; nil and empty mean not given.
package struct GatewayOptions: Sendable {
    package var listen: [String] = []
    package var listenVersion1: [String] = []
    package var allowsInsecureVersion1 = false
    package var debug = 0
    package var configuration: String?
    package var stateDirectory: String?
    package var exposeBind: String?
    package var exposePorts: String?
    package var auth: String?
    package var tlsCertificate: String?
    package var tlsKey: String?
    package var acceptProxyProtocol: [String] = []

    package init() {}
}

/// How a gateway is to run: the command line over the configuration file over the defaults.
package struct GatewaySettings: Sendable {
    package enum Authentication: Equatable, Sendable {
        /// Every agent, from loopback addresses only.
        case openToLoopback
        /// Every agent from everywhere: written out by the operator.
        case open
    }

    /// Where agents connect; the defaults are allowed to lack IPv6.
    package let listen: [HostPort]
    package let listensByDefault: Bool
    /// Where agents of protocol version 1 connect; on loopback addresses unless the operator wrote out otherwise.
    package let listenVersion1: [HostPort]
    package let debug: Int
    package let stateDirectory: String
    package let exposeBind: String
    /// Nil: any port that the system gives.
    package let exposePorts: PortRange?
    package let authentication: Authentication
    /// A certificate of a public authority, instead of the gateway's own.
    package let tlsFiles: (certificate: String, key: String)?
    /// From where visitors' connections begin with a PROXY header, which is believed.
    package let proxies: [Network]

    package init(_ options: GatewayOptions) throws(SettingsError) {
        let file: TOMLFile?
        if let path = options.configuration { file = try TOMLFile(path: path) } else { file = nil }
        let section = file?.root
        let given = try (
            listen: section?.strings("listen"), listenVersion1: section?.strings("listen-v1"),
            allowsInsecureVersion1: section?.boolean("v1-insecure-ok"), debug: section?.integer("debug"),
            stateDirectory: section?.string("state-dir"), exposeBind: section?.string("expose-bind"),
            exposePorts: section?.string("expose-ports"), auth: section?.string("auth"),
            certificate: section?.string("tls-cert"), key: section?.string("tls-key"),
            proxies: section?.strings("accept-proxy-protocol")
        )
        try section?.finish()
        func place(_ option: String, _ isOption: Bool) -> String {
            isOption ? "option --\(option)" : section?.place(of: option) ?? "option --\(option)"
        }

        let listen = options.listen.isEmpty ? given.listen ?? [] : options.listen
        self.listensByDefault = listen.isEmpty
        self.listen = try Self.addresses(
            listen.isEmpty ? ["0.0.0.0:20000", "[::]:20000"] : listen,
            place: place("listen", !options.listen.isEmpty))
        let version1 = options.listenVersion1.isEmpty ? given.listenVersion1 ?? [] : options.listenVersion1
        let version1Place = place("listen-v1", !options.listenVersion1.isEmpty)
        self.listenVersion1 = try Self.addresses(version1, place: version1Place)
        if !(options.allowsInsecureVersion1 || given.allowsInsecureVersion1 ?? false) {
            for address in self.listenVersion1 where !address.isLoopback {
                throw SettingsError(
                    version1Place,
                    "\(address) is no loopback address, and version 1 is not safe on a network: nothing in it is "
                        + "authenticated; let agents come through a tunnel of their own, or write out v1-insecure-ok")
            }
        }

        let debug = max(options.debug, given.debug ?? 0)
        guard (0...9).contains(debug) else { throw SettingsError(place("debug", false), "'debug' is 0, 1 or 2") }
        self.debug = debug
        self.stateDirectory = try StateDirectory.path(
            options.stateDirectory ?? given.stateDirectory, program: "diglett-server")
        self.exposeBind = options.exposeBind ?? given.exposeBind ?? "127.0.0.1"
        if let ports = options.exposePorts ?? given.exposePorts {
            self.exposePorts = try PortRange(ports, place: place("expose-ports", options.exposePorts != nil))
        } else {
            self.exposePorts = nil
        }
        switch options.auth ?? given.auth {
        case nil: self.authentication = .openToLoopback
        case "open": self.authentication = .open
        case .some(let other):
            throw SettingsError(
                place("auth", options.auth != nil), "'\(other)' is no way to know agents: the one there is, is 'open'")
        }
        switch (options.tlsCertificate ?? given.certificate, options.tlsKey ?? given.key) {
        case (nil, nil): self.tlsFiles = nil
        case (.some(let certificate), .some(let key)): self.tlsFiles = (certificate, key)
        case (.some, nil):
            throw SettingsError(place("tls-cert", options.tlsCertificate != nil), "needs tls-key as well")
        case (nil, .some): throw SettingsError(place("tls-key", options.tlsKey != nil), "needs tls-cert as well")
        }
        let areOptions = !options.acceptProxyProtocol.isEmpty
        self.proxies = try Self.networks(
            areOptions ? options.acceptProxyProtocol : given.proxies ?? [],
            place: place("accept-proxy-protocol", areOptions))
    }

    private static func addresses(_ texts: [String], place: String) throws(SettingsError) -> [HostPort] {
        var addresses: [HostPort] = []
        for text in texts {
            guard let address = HostPort(text) else {
                throw SettingsError(place, "'\(text)' is no address: write HOST:PORT or [IPV6]:PORT")
            }
            addresses.append(address)
        }
        return addresses
    }

    private static func networks(_ texts: [String], place: String) throws(SettingsError) -> [Network] {
        var networks: [Network] = []
        for text in texts { networks.append(try Network(text, place: place)) }
        return networks
    }
}
