/// A registrar of a gateway's configuration, a table `[[registrar]]` (`docs/proxies.md`).
package enum RegistrarSettings: Equatable, Sendable {
    case traefik(TraefikSettings)
    case caddy(CaddySettings)
    case mapFile(MapFileSettings)
    case hook(HookSettings)

    /// The value of `kind` in the file.
    package var kind: String {
        switch self {
        case .traefik: "traefik"
        case .caddy: "caddy"
        case .mapFile(let settings): settings.style == .nginx ? "nginx" : "haproxy"
        case .hook(.exec): "exec"
        case .hook(.webhook): "webhook"
        }
    }

    /// What this registrar writes to, as key and value. Two registrars with the same target would remove each other's
    /// names, because a proxy identifies a route by the name alone.
    var targets: [(key: String, value: String)] {
        switch self {
        case .traefik(let settings):
            let listen = settings.listen.map { ("listen", "\($0.canonical)") }
            return [settings.directory.map { ("directory", FileAccess.resolved($0)) }, listen].compactMap(\.self)
        case .caddy(let settings):
            return (try? WebURL(settings.admin)).map { [("admin", $0.target)] } ?? []
        case .mapFile(let settings):
            // An invalid path was already reported.
            guard let slash = settings.file.lastIndex(of: "/") else { return [] }
            // The file is replaced even if it is a link, so only its directory is resolved.
            let directory = FileAccess.resolved(String(settings.file[...slash]))
            return [
                ("file", FileAccess.path(in: directory, String(settings.file[settings.file.index(after: slash)...])))
            ]
        case .hook: return []
        }
    }

    static let kinds = "use print, traefik, caddy, nginx, haproxy, exec or webhook"

    /// Nil for `print`, which is always active, and for an unknown kind.
    ///
    /// - Parameter reader: reads a table `[[registrar]]`.
    init?(_ reader: SettingsReader, _ paths: ExposurePaths) {
        // Without a valid kind the other keys are unknown.
        guard let kind = reader.value(RegistrarKeys.keys.kind) else { return nil }
        switch kind {
        case "print":
            reader.finish(RegistrarKeys.self)
            return nil
        case "traefik":
            self = .traefik(TraefikSettings(reader, paths))
            reader.finish(RegistrarKeys.self, ProxyKeys.self, TraefikKeys.self)
        case "caddy":
            self = .caddy(CaddySettings(reader, paths))
            reader.finish(RegistrarKeys.self, ProxyKeys.self, CaddyKeys.self)
        case "nginx", "haproxy":
            self = .mapFile(MapFileSettings(reader, paths, style: kind == "nginx" ? .nginx : .haproxy))
            reader.finish(RegistrarKeys.self, ProxyKeys.self, MapKeys.self)
        case "exec":
            self = .hook(.exec(ExecSettings(reader)))
            reader.finish(RegistrarKeys.self, ExecKeys.self)
        case "webhook":
            self = .hook(.webhook(WebhookSettings(reader)))
            reader.finish(RegistrarKeys.self, WebhookKeys.self)
        default:
            reader.add(RegistrarKeys.keys.kind, "'\(kind)' is not a registrar: \(Self.kinds)")
            return nil
        }
    }
}

/// The host under which a proxy serves a name, and how the proxy reaches the gateway.
package struct RouteSettings: Equatable, Sendable {
    /// The listener of a name that the proxy connects to.
    package enum Via: Sendable { case tcp, unix }

    /// A name's host is `NAME.DOMAIN`.
    package let domain: String
    /// The host at which the proxy reaches the gateway's listeners; nil if both run on the same machine.
    package let gatewayHost: String?
    package let via: Via

    /// - Parameter takesSockets: whether this kind of proxy can look up a unix socket by name.
    init(_ reader: SettingsReader, _ paths: ExposurePaths, takesSockets: Bool) {
        let keys = ProxyKeys.keys
        self.domain = reader.value(keys.domain) ?? ""
        self.gatewayHost = reader.value(keys.gatewayHost)
        let refusal: String? =
            if !takesSockets { "this proxy cannot use unix sockets" } else if reader.isGiven(keys.gatewayHost) {
                "a unix socket does not reach the gateway on another host ('gateway-host')"
            } else if !paths.hasSockets { "names have unix sockets only with expose-sockets" } else { nil }
        let given = reader.value(keys.via)
        // Its error was already reported.
        guard given != nil || !reader.isGiven(keys.via) else {
            self.via = .tcp
            return
        }
        switch given {
        case .unix where refusal != nil:
            reader.add(keys.via, refusal ?? "")
            self.via = .unix
        case .unix: self.via = .unix
        case nil where refusal == nil: self.via = .unix
        case nil, .tcp:
            self.via = .tcp
            guard !paths.hasPorts else { break }
            let reason =
                "with expose-ports = \"none\", names have no ports" + (refusal.map { ", and \($0)" } ?? "")
            if given == nil { reader.add(RegistrarKeys.keys.kind, reason) } else { reader.add(keys.via, reason) }
        }
    }
}

/// Settings of the registrar for Traefik v3.
package struct TraefikSettings: Equatable, Sendable {
    package enum Scheme: String, CaseIterable, Sendable { case http, h2c, tcp }

    package let route: RouteSettings
    /// The directory of Traefik's file provider; nil if only `listen` is set.
    package let directory: String?
    /// The address that Traefik's HTTP provider polls; nil if only `directory` is set.
    package let listen: HostPort?
    /// The place of `listen`, `file:line`, for errors.
    package let listenPlace: String
    package let scheme: Scheme
    package let entryPoints: [String]
    package let middlewares: [String]
    /// Whether Traefik terminates TLS, with the certificates of `certResolver` if that is set.
    package let tls: Bool
    package let certResolver: String?

    init(_ reader: SettingsReader, _ paths: ExposurePaths) {
        let keys = TraefikKeys.keys
        self.route = RouteSettings(reader, paths, takesSockets: false)
        self.directory = reader.value(keys.directory)
        self.listen = reader.value(keys.listen)
        self.listenPlace = reader.place(of: keys.listen)
        if let listen { reader.problems.listener(listen, at: self.listenPlace) }
        if let directory { reader.problems.need(.directory(directory), at: reader.place(of: keys.directory)) }
        if !reader.isGiven(keys.directory), !reader.isGiven(keys.listen) {
            reader.add(
                RegistrarKeys.keys.kind,
                "traefik needs a 'directory' for its file provider or 'listen' for its HTTP provider")
        }
        self.scheme = reader.value(keys.scheme)
        self.entryPoints = reader.value(keys.entryPoints)
        self.middlewares = reader.value(keys.middlewares)
        self.certResolver = reader.value(keys.certResolver)
        self.tls = reader.value(keys.tls) ?? (self.certResolver != nil || self.scheme == .tcp)
        if self.scheme == .tcp, !self.tls {
            reader.add(keys.tls, "with tcp, Traefik routes by TLS server name (SNI): 'tls' cannot be false")
        }
    }
}

/// Settings of the registrar that uses Caddy's admin API.
package struct CaddySettings: Equatable, Sendable {
    package let route: RouteSettings
    package let admin: String
    /// The server in Caddy's configuration to which routes are added.
    package let server: String
    package let scheme: Scheme

    package enum Scheme: String, CaseIterable, Sendable { case http, h2c }

    init(_ reader: SettingsReader, _ paths: ExposurePaths) {
        self.route = RouteSettings(reader, paths, takesSockets: true)
        self.scheme = reader.value(CaddyKeys.keys.scheme)
        self.admin = reader.value(CaddyKeys.keys.admin)
        self.server = reader.value(CaddyKeys.keys.server)
    }

    static func check(admin text: String, place: String) throws(SettingsError) {
        func refusal(_ reason: String) -> SettingsError {
            SettingsError(
                place,
                "'\(WebURL.shown(text))' is not an admin address: \(reason); write for example http://localhost:2019")
        }
        let url: WebURL
        do throws(WebURL.Mistake) { url = try WebURL(text) } catch { throw refusal(error.reason) }
        guard url.scheme == .http else { throw refusal("Caddy's admin API has no https") }
        // API paths are appended to it.
        guard !url.hasPath else { throw refusal("it has a path") }
    }

    static func check(server text: String, place: String) throws(SettingsError) {
        // The name becomes part of a URL path, where these characters need no escaping (RFC 3986, 2.3).
        let isPlain = text.utf8.allSatisfy { byte in
            (0x30...0x39).contains(byte) || (0x41...0x5A).contains(byte) || (0x61...0x7A).contains(byte)
                || "-._~".utf8.contains(byte)
        }
        guard isPlain, !text.isEmpty, text != ".", text != ".." else {
            throw SettingsError(
                place, "'\(text)' is not a server name: use letters, digits and - . _ ~")
        }
    }
}

/// Settings of a map file with one line per name, and of the command that makes the proxy read it.
package struct MapFileSettings: Equatable, Sendable {
    package enum Style: Equatable, Sendable {
        /// `HOST ADDRESS:PORT;`, for `map { include ...; }`
        case nginx
        /// `HOST PORT`, for the converter `map()`
        case haproxy
    }

    package let route: RouteSettings
    package let style: Style
    package let file: String
    package let reload: [String]
    /// Milliseconds, for the command.
    package let timeout: UInt64

    init(_ reader: SettingsReader, _ paths: ExposurePaths, style: Style) {
        let keys = MapKeys.keys
        self.style = style
        self.route = RouteSettings(reader, paths, takesSockets: style == .nginx)
        self.file = reader.value(keys.file) ?? ""
        if !self.file.isEmpty {
            reader.problems.need(StartNeed.directory(of: self.file), at: reader.place(of: keys.file))
            reader.problems.need(.file(self.file), at: reader.place(of: keys.file))
        }
        self.reload = reader.value(keys.reload) ?? [""]
        self.timeout = reader.value(keys.timeout)
    }
}
