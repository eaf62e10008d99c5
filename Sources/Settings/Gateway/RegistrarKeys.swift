/// The key that every table `[[registrar]]` has.
package final class RegistrarKeys: KeyTable {
    package static let name = "registrar"
    package static let keys = RegistrarKeys()

    let kind = Key(
        "kind", .text, missing: "'kind' is missing: \(RegistrarSettings.kinds)",
        "`print` (always active, without keys), `traefik`, `caddy`, `nginx`, `haproxy`, `exec` or `webhook`")
}

/// The keys of the registrars for proxies.
package final class ProxyKeys: KeyTable {
    package static let name = "proxy"
    package static let keys = ProxyKeys()

    enum Way: String, CaseIterable, Sendable { case tcp, unix }

    let domain = Key(
        "domain",
        Form<String>.text.map { domain, place, _ throws(SettingsError) in
            let labels = domain.split(separator: ".", omittingEmptySubsequences: false)
            guard domain.utf8.count <= 189, labels.allSatisfy({ AgentEntry.isValid(name: String($0)) }) else {
                throw SettingsError(place, "'\(domain)' is not a domain (lower case)")
            }
            return domain
        }, missing: "'domain' is missing: names are served as NAME.DOMAIN", "a name is served as `NAME.DOMAIN`")
    let gatewayHost = Key(
        "gateway-host",
        Form<String>.text.map { host, place, _ throws(SettingsError) in
            // The host is written into configuration files of proxies.
            guard HostPort.isHost(host) else {
                throw SettingsError(place, "'\(host)' is not a host name or an address")
            }
            return host
        }, shown: "this machine", "the host under which the proxy reaches the gateway")
    let via = Key(
        "via", Form<Way>.choice, shown: "`unix` if possible, else `tcp`",
        "how the proxy connects to names: `tcp`, or `unix` with `expose-sockets` (Caddy and nginx on this machine)")
}

/// The keys of `kind = "traefik"`.
package final class TraefikKeys: KeyTable {
    package static let name = "traefik"
    package static let keys = TraefikKeys()

    let directory = Key(
        "directory", .path,
        "the directory of Traefik's file provider, for one file `diglett-NAME.yml` per name")
    let listen = Key(
        "listen",
        Form<String>.text.map { text, place, _ throws(SettingsError) in
            guard let address = HostPort(text), address.isLoopback else {
                throw SettingsError(place, "'\(text)' is not a loopback address with a port")
            }
            return address
        }, "a loopback address, `HOST:PORT`, to serve all names to Traefik's HTTP provider on")
    let scheme = Key(
        "scheme", Form<TraefikSettings.Scheme>.choice, default: .http,
        "Traefik's protocol to the backend: `http`, `h2c` or `tcp`")
    let entryPoints = Key(
        "entry-points", .texts, default: [], shown: "Traefik's default",
        "Traefik's entry points for the names")
    let middlewares = Key("middlewares", .texts, default: [], "Traefik's middlewares for the names")
    let tls = Key(
        "tls", .onOff, shown: "`true` with `cert-resolver` or `tcp`",
        "whether Traefik terminates TLS; must be `true` with `tcp`")
    let certResolver = Key("cert-resolver", .text, "Traefik's certificate resolver")
}

/// The keys of `kind = "caddy"`.
package final class CaddyKeys: KeyTable {
    package static let name = "caddy"
    package static let keys = CaddyKeys()

    let admin = Key(
        "admin",
        Form<String>.text.map(shown: { "`\($0)`" }) { text, place, _ throws(SettingsError) in
            try CaddySettings.check(admin: text, place: place)
            return text
        }, default: "http://localhost:2019", "the address of Caddy's admin API")
    let server = Key(
        "server",
        Form<String>.text.map(shown: { "`\($0)`" }) { text, place, _ throws(SettingsError) in
            try CaddySettings.check(server: text, place: place)
            return text
        }, default: "srv0",
        "the name of the server in Caddy's configuration: letters, digits and `-` `.` `_` `~`")
    let scheme = Key(
        "scheme", Form<CaddySettings.Scheme>.choice, default: .http,
        "Caddy's protocol to the backend: `http` or `h2c`")
}

/// The keys of `kind = "nginx"` and `kind = "haproxy"`.
package final class MapKeys: KeyTable {
    package static let name = "map"
    package static let keys = MapKeys()

    let file = Key(
        "file",
        Form<String>.text.map { file, place, _ throws(SettingsError) in
            guard file.hasPrefix("/") else {
                throw SettingsError(place, "'\(file)' is not an absolute path")
            }
            return file
        }, missing: "'file' is missing: the absolute path of the file to write",
        "the absolute path of the map file to write")
    let reload = Key(
        "reload", .command, missing: "'reload' is missing: a list of the program's path and its arguments",
        "the absolute path and arguments of the program that makes the proxy reload the file; no shell is used")
    let timeout = ExecKeys.timeout("timeout of that program in seconds, 0.1 to 9")
}
