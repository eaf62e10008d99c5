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
            let listen = settings.listen.map { ("listen", "\($0.canonical)") }
            return [settings.directory.map { ("directory", FileAccess.resolved($0)) }, listen].compactMap(\.self)
        case .caddy(let settings):
            return (try? WebURL(settings.admin)).map { [("admin", $0.target)] } ?? []
        case .mapFile(let settings):
            // What could not be read has been told, and is the same for all that could not.
            guard let slash = settings.file.lastIndex(of: "/") else { return [] }
            // The file itself is replaced, be it a link.
            let directory = FileAccess.resolved(String(settings.file[...slash]))
            return [
                ("file", FileAccess.path(in: directory, String(settings.file[settings.file.index(after: slash)...])))
            ]
        case .hook: return []
        }
    }

    /// Nil for `print`, which is always there, and where the kind is unknown.
    init?(_ section: TOMLFile.Section, _ paths: ExposurePaths, _ problems: Problems) {
        let kind = problems.value(nil) { () throws(SettingsError) in try section.string("kind") ?? "" }
        switch kind {
        // Another type than a text.
        case nil: return nil
        case "print":
            section.finish(problems)
            return nil
        case "traefik": self = .traefik(TraefikSettings(section, paths, problems))
        case "caddy": self = .caddy(CaddySettings(section, paths, problems))
        case "nginx": self = .mapFile(MapFileSettings(section, paths, problems, style: .nginx))
        case "haproxy": self = .mapFile(MapFileSettings(section, paths, problems, style: .haproxy))
        case "exec": self = .hook(.exec(ExecSettings(section, problems)))
        case "webhook": self = .hook(.webhook(WebhookSettings(section, problems)))
        case .some(let other):
            problems.add(
                section.place(of: "kind"),
                "'\(other)' is no registrar: there are print, traefik, caddy, nginx, haproxy, exec and webhook")
            return nil
        }
        section.finish(problems)
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
    init(_ section: TOMLFile.Section, _ paths: ExposurePaths, _ problems: Problems, takesSockets: Bool) {
        self.domain = problems.value("") { () throws(SettingsError) in
            guard let domain = try section.string("domain") else {
                throw SettingsError(section.place(of: "domain"), "'domain' is missing: names are served as NAME.DOMAIN")
            }
            let labels = domain.split(separator: ".", omittingEmptySubsequences: false)
            guard domain.utf8.count <= 189, labels.allSatisfy({ AgentEntry.isValid(name: String($0)) }) else {
                throw SettingsError(section.place(of: "domain"), "'\(domain)' is no domain in lower case")
            }
            return domain
        }
        self.gatewayHost = problems.value(nil) { () throws(SettingsError) in
            guard let host = try section.string("gateway-host") else { return nil }
            // It stands in proxies' own files.
            guard HostPort.isHost(host) else {
                throw SettingsError(
                    section.place(of: "gateway-host"), "'\(host)' is neither a host's name nor its address")
            }
            return host
        }
        let isElsewhere = section.has("gateway-host")
        self.via = problems.value(.tcp) { () throws(SettingsError) in
            try Self.via(section, paths, takesSockets: takesSockets, isElsewhere: isElsewhere)
        }
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
        case .some(let other): throw SettingsError(place, "'\(other)' is neither tcp nor unix")
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
    /// `file:line` of that, for errors.
    package let listenPlace: String
    package let scheme: Scheme
    package let entryPoints: [String]
    package let middlewares: [String]
    /// Terminate TLS, with this resolver's certificates if one is named.
    package let tls: Bool
    package let certResolver: String?

    init(_ section: TOMLFile.Section, _ paths: ExposurePaths, _ problems: Problems) {
        self.route = RouteSettings(section, paths, problems, takesSockets: false)
        self.directory = problems.value(nil) { () throws(SettingsError) in try section.path("directory") }
        self.listenPlace = section.place(of: "listen")
        self.listen = problems.value(nil) { () throws(SettingsError) in
            guard let text = try section.string("listen") else { return nil }
            guard let address = HostPort(text), address.isLoopback else {
                throw SettingsError(section.place(of: "listen"), "'\(text)' is no loopback address with a port")
            }
            problems.listener(address, at: section.place(of: "listen"))
            return address
        }
        if let directory = self.directory { problems.need(.directory(directory), at: section.place(of: "directory")) }
        if !section.has("directory"), !section.has("listen") {
            problems.add(
                section.place(of: "kind"),
                "traefik needs a 'directory' for its file provider or 'listen' for its HTTP provider")
        }
        let scheme = problems.value(Scheme.http) { () throws(SettingsError) in
            let text = try section.string("scheme") ?? "http"
            guard let known = Scheme(rawValue: text) else {
                throw SettingsError(section.place(of: "scheme"), "'\(text)' is neither http nor h2c nor tcp")
            }
            return known
        }
        self.scheme = scheme
        self.entryPoints = problems.value([]) { () throws(SettingsError) in try section.strings("entry-points") ?? [] }
        self.middlewares = problems.value([]) { () throws(SettingsError) in try section.strings("middlewares") ?? [] }
        let resolver = problems.value(nil) { () throws(SettingsError) in try section.string("cert-resolver") }
        self.certResolver = resolver
        self.tls = problems.value(true) { () throws(SettingsError) in
            let tls = try section.boolean("tls") ?? (resolver != nil || scheme == .tcp)
            guard scheme != .tcp || tls else {
                throw SettingsError(
                    section.place(of: "tls"), "with tcp, Traefik tells names apart by TLS (SNI): 'tls' cannot be false")
            }
            return tls
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

    init(_ section: TOMLFile.Section, _ paths: ExposurePaths, _ problems: Problems) {
        self.route = RouteSettings(section, paths, problems, takesSockets: true)
        self.scheme = problems.value(.http) { () throws(SettingsError) in
            let text = try section.string("scheme") ?? "http"
            guard let known = Scheme(rawValue: text) else {
                throw SettingsError(section.place(of: "scheme"), "'\(text)' is neither http nor h2c")
            }
            return known
        }
        self.admin = problems.value("") { () throws(SettingsError) in
            let text = try section.string("admin") ?? "http://localhost:2019"
            func refusal(_ reason: String) -> SettingsError {
                SettingsError(
                    section.place(of: "admin"),
                    "'\(WebURL.shown(text))' is no admin address, \(reason): write http://localhost:2019 for instance")
            }
            let url: WebURL
            do throws(WebURL.Mistake) { url = try WebURL(text) } catch { throw refusal(error.reason) }
            guard url.scheme == .http else { throw refusal("as Caddy has no https there") }
            // The paths of its API are put behind it.
            guard !url.hasPath else { throw refusal("as it has a path") }
            return text
        }
        self.server = problems.value("") { () throws(SettingsError) in
            let text = try section.string("server") ?? "srv0"
            // It is a part of a URL's path; these need no escapes there (RFC 3986, 2.3).
            let isPlain = text.utf8.allSatisfy { byte in
                (0x30...0x39).contains(byte) || (0x41...0x5A).contains(byte) || (0x61...0x7A).contains(byte)
                    || "-._~".utf8.contains(byte)
            }
            guard isPlain, !text.isEmpty, text != ".", text != ".." else {
                throw SettingsError(
                    section.place(of: "server"),
                    "'\(text)' is no name of a server: it is written with letters, digits and - . _ ~ here")
            }
            return text
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

    init(_ section: TOMLFile.Section, _ paths: ExposurePaths, _ problems: Problems, style: Style) {
        self.style = style
        self.route = RouteSettings(section, paths, problems, takesSockets: style == .nginx)
        self.file = problems.value("") { () throws(SettingsError) in
            guard let file = try section.string("file"), file.hasPrefix("/") else {
                throw SettingsError(
                    section.place(of: "file"), "'file' is missing: the whole path, from /, of the file to write")
            }
            return file
        }
        if !self.file.isEmpty {
            problems.need(StartNeed.directory(of: self.file), at: section.place(of: "file"))
            problems.need(.file(self.file), at: section.place(of: "file"))
        }
        self.reload = problems.value([""]) { () throws(SettingsError) in try section.command("reload") }
        self.timeout = problems.milliseconds(section)
    }
}
