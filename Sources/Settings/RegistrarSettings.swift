internal import Wire

/// A registrar of a gateway's configuration, a table `[[registrar]]` (`docs/modules.md`).
package enum RegistrarSettings: Equatable, Sendable {
    case traefik(TraefikSettings)
    case caddy(CaddySettings)
    case mapFile(MapFileSettings)
    case hook(HookSettings)

    /// What the file calls it.
    package var kind: String {
        switch self {
        case .traefik: "traefik"
        case .caddy: "caddy"
        case .mapFile(let settings): settings.style == .nginx ? "nginx" : "haproxy"
        case .hook(.exec): "exec"
        case .hook(.webhook): "webhook"
        }
    }

    /// What this one writes to, as key and value. Another that does the same would take back what this one publishes:
    /// a proxy knows a name's route by the name alone.
    var targets: [(key: String, value: String)] {
        switch self {
        case .traefik(let settings):
            let listen = settings.listen.map { ("listen", "\($0)") }
            return [settings.directory.map { ("directory", Self.plain(path: $0)) }, listen].compactMap(\.self)
        case .caddy(let settings):
            return [("admin", settings.admin.replacing("//localhost:", with: "//127.0.0.1:", maxReplacements: 1))]
        case .mapFile(let settings): return [("file", Self.plain(path: settings.file))]
        case .hook: return []
        }
    }

    /// Without what makes no difference.
    private static func plain(path: String) -> String {
        (path.hasPrefix("/") ? "/" : "") + path.split(separator: "/").filter { $0 != "." }.joined(separator: "/")
    }

    /// Nil for `print`, which is always there.
    init?(_ section: TOMLFile.Section, _ paths: ExposurePaths) throws(SettingsError) {
        let kind = try section.string("kind") ?? ""
        switch kind {
        case "print": return nil
        case "traefik": self = .traefik(try TraefikSettings(section, paths))
        case "caddy": self = .caddy(try CaddySettings(section, paths))
        case "nginx": self = .mapFile(try MapFileSettings(section, paths, style: .nginx))
        case "haproxy": self = .mapFile(try MapFileSettings(section, paths, style: .haproxy))
        case "exec": self = .hook(.exec(try ExecSettings(section)))
        case "webhook": self = .hook(.webhook(try WebhookSettings(section)))
        default:
            throw SettingsError(
                section.place(of: "kind"),
                "'\(kind)' is no registrar: there are print, traefik, caddy, nginx, haproxy, exec and webhook")
        }
    }
}

/// Under which host a proxy serves a name, and how it reaches the gateway.
package struct RouteSettings: Equatable, Sendable {
    /// What of a name's listeners the proxy connects to.
    package enum Via: Sendable { case tcp, unix }

    /// A name's host is `NAME.DOMAIN`.
    package let domain: String
    /// Where the proxy finds the gateway's listeners; nil where it is on the same machine.
    package let gatewayHost: String?
    package let via: Via

    /// - Parameter takesSockets: whether this kind of proxy can find a unix socket by a name.
    init(_ section: TOMLFile.Section, _ paths: ExposurePaths, takesSockets: Bool) throws(SettingsError) {
        guard let domain = try section.string("domain") else {
            throw SettingsError(section.place(of: "domain"), "'domain' is missing: names are served as NAME.DOMAIN")
        }
        let labels = domain.split(separator: ".", omittingEmptySubsequences: false)
        guard domain.utf8.count <= 189, labels.allSatisfy({ AgentEntry.isValid(name: String($0)) }) else {
            throw SettingsError(section.place(of: "domain"), "'\(domain)' is no domain in lower case")
        }
        self.domain = domain
        self.gatewayHost = try section.string("gateway-host")
        self.via = try Self.via(section, paths, takesSockets: takesSockets, isElsewhere: self.gatewayHost != nil)
    }

    private static func via(
        _ section: TOMLFile.Section, _ paths: ExposurePaths, takesSockets: Bool, isElsewhere: Bool
    ) throws(SettingsError) -> Via {
        let given = try section.string("via")
        let place = section.place(of: given == nil ? "kind" : "via")
        let refusal: String? =
            if !takesSockets { "this proxy cannot find unix sockets by name" } else if isElsewhere {
                "a gateway on another host, which 'gateway-host' names, is not reached by a unix socket"
            } else if !paths.hasSockets { "names have unix sockets only with expose-sockets" } else { nil }
        switch given {
        case nil where refusal == nil: return .unix
        case nil, "tcp":
            guard paths.hasPorts else {
                throw SettingsError(
                    place, "with expose-ports = \"none\" there are no ports" + (refusal.map { ", and \($0)" } ?? ""))
            }
            return .tcp
        case "unix":
            if let refusal { throw SettingsError(place, refusal) }
            return .unix
        case .some(let other): throw SettingsError(place, "'\(PeerText.escaped(other))' is neither tcp nor unix")
        }
    }
}

/// Dynamic configuration for Traefik v3.
package struct TraefikSettings: Equatable, Sendable {
    package enum Scheme: String, CaseIterable, Sendable { case http, h2c, tcp }

    package let route: RouteSettings
    /// Where Traefik's file provider looks; nil when only `listen` is given.
    package let directory: String?
    /// Where Traefik's HTTP provider asks.
    package let listen: HostPort?
    package let scheme: Scheme
    package let entryPoints: [String]
    package let middlewares: [String]
    /// Terminate TLS, with this resolver's certificates if one is named.
    package let tls: Bool
    package let certResolver: String?

    init(_ section: TOMLFile.Section, _ paths: ExposurePaths) throws(SettingsError) {
        self.route = try RouteSettings(section, paths, takesSockets: false)
        self.directory = try section.string("directory")
        if let text = try section.string("listen") {
            guard let address = HostPort(text), address.isLoopback else {
                throw SettingsError(section.place(of: "listen"), "'\(text)' is no loopback address with a port")
            }
            self.listen = address
        } else {
            self.listen = nil
        }
        guard self.directory != nil || self.listen != nil else {
            throw SettingsError(
                section.place(of: "kind"),
                "traefik needs a 'directory' for its file provider or 'listen' for its HTTP provider")
        }
        let scheme = try section.string("scheme") ?? "http"
        guard let known = Scheme(rawValue: scheme) else {
            throw SettingsError(section.place(of: "scheme"), "'\(scheme)' is neither http nor h2c nor tcp")
        }
        self.scheme = known
        self.entryPoints = try section.strings("entry-points") ?? []
        self.middlewares = try section.strings("middlewares") ?? []
        self.certResolver = try section.string("cert-resolver")
        self.tls = try section.boolean("tls") ?? (self.certResolver != nil || known == .tcp)
        guard known != .tcp || self.tls else {
            throw SettingsError(
                section.place(of: "tls"), "with tcp, Traefik tells names apart by TLS (SNI): 'tls' cannot be false")
        }
    }
}

/// Routes by Caddy's admin API.
package struct CaddySettings: Equatable, Sendable {
    package let route: RouteSettings
    package let admin: String
    /// Caddy's name of the server that gets the routes.
    package let server: String
    package let scheme: Scheme

    package enum Scheme: String, Sendable { case http, h2c }

    init(_ section: TOMLFile.Section, _ paths: ExposurePaths) throws(SettingsError) {
        self.route = try RouteSettings(section, paths, takesSockets: true)
        let scheme = try section.string("scheme") ?? "http"
        guard let known = Scheme(rawValue: scheme) else {
            throw SettingsError(section.place(of: "scheme"), "'\(PeerText.escaped(scheme))' is neither http nor h2c")
        }
        self.scheme = known
        self.admin = try section.string("admin") ?? "http://localhost:2019"
        guard self.admin.hasPrefix("http://"), !self.admin.hasSuffix("/") else {
            throw SettingsError(
                section.place(of: "admin"), "'\(self.admin)' is no admin address: http://localhost:2019 for instance")
        }
        self.server = try section.string("server") ?? "srv0"
        guard self.server.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F && $0 != UInt8(ascii: "/") }), !self.server.isEmpty
        else {
            throw SettingsError(section.place(of: "server"), "'\(self.server)' is no name of a server")
        }
    }
}

/// A file with a line for each name, and a command that makes the proxy read it.
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
    package let timeout: UInt64

    init(_ section: TOMLFile.Section, _ paths: ExposurePaths, style: Style) throws(SettingsError) {
        self.style = style
        self.route = try RouteSettings(section, paths, takesSockets: style == .nginx)
        guard let file = try section.string("file"), file.hasPrefix("/") else {
            throw SettingsError(
                section.place(of: "file"), "'file' is missing: the whole path, from /, of the file to write")
        }
        self.file = file
        self.reload = try section.command("reload")
        self.timeout = try section.milliseconds("timeout", default: 5_000)
    }
}
