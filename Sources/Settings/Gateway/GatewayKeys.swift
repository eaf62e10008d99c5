internal import Wire

/// The keys of a gateway's file, and the options of `diglett-server`.
package final class GatewayKeys: KeyTable {
    package static let name = "gateway"
    package static let optionHeading: String? = "option"
    package static let keys = GatewayKeys()

    package let listen = Key(
        "listen", .listeners, default: [], shown: "`0.0.0.0:20000` and `[::]:20000`",
        option: CommandOption(short: "l", value: "host:port", repeats: true), "addresses for agents, `HOST:PORT`")
    package let listenV1 = Key(
        "listen-v1", .listeners, default: [], shown: "none", option: CommandOption(value: "host:port", repeats: true),
        "addresses for agents of the original diglett ([version 1](version-1.md))")
    package let v1InsecureOk = Key(
        "v1-insecure-ok", .onOff, default: false, option: CommandOption(),
        "allow other than loopback addresses in `listen-v1`")
    package let debug = CommonKeys.debug
    package let logFormat = CommonKeys.logFormat
    package let logStreams = CommonKeys.logStreams
    package let stateDir = Key(
        "state-dir", .path, shown: "see [the environment](#the-environment)",
        option: CommandOption(
            value: "dir", completion: .directory,
            help: "the directory with key and ports; by default `$STATE_DIRECTORY`, `/var/lib/diglett-server` or below "
                + "`~/.local/state`"),
        "the directory with [key and ports](operations.md#state)")
    package let exposeBind = Key(
        "expose-bind", .texts, default: ["127.0.0.1"], shown: "`127.0.0.1`",
        option: CommandOption(
            value: "host", help: "addresses to bind public ports to; `::` for all of both families", repeats: true),
        "addresses to bind public ports to",
        more: ", 16 at most, without brackets: `::` for all of IPv6, and of IPv4 if no IPv4 address is in the list; "
            + "`0.0.0.0` for all of IPv4. A name has the same port on all; agents and proxies receive the first. While "
            + "the machine lacks one, the gateway runs and names wait; `check` reports it")
    package let exposePorts = Key(
        "expose-ports", .publicPorts, default: .any, shown: "any from 1024 on",
        option: CommandOption(value: "low-high|none"),
        "public ports that names may have, `LOW-HIGH` or a single one; `none` with `expose-sockets`",
        more: "; ports below 1024 only if they are in this range")
    package let exposeSockets = Key(
        "expose-sockets", .text, shown: "none",
        option: CommandOption(value: "dir", completion: .directory),
        "a directory, as an absolute path, in which each name has "
            + "[a unix socket](modules.md#unix-sockets-instead-of-ports)")
    package let exposeSocketsGroup = Key(
        "expose-sockets-group", .text, shown: "the gateway's user only", option: CommandOption(value: "group"),
        "the group, by name or number, that may connect to these sockets")
    package let publicURL = Key(
        "public-url", .text, shown: "the address of the public port",
        "the address that agents receive and pass on to scripts: HOST:PORT or an http or https URL without query, with "
            + "`{name}` for the name")
    package let acceptProxyProtocol = Key(
        "accept-proxy-protocol", .texts, default: [], shown: "none",
        option: CommandOption(value: "network|unix", repeats: true),
        "addresses and networks of trusted proxies, which [send visitors' and agents' "
            + "addresses](operations.md#client-addresses)", more: "; `unix` for those at unix sockets")
    package let trustedNetworks = Key(
        "trusted-networks", .networks, default: [], shown: "none",
        "addresses and networks of agents, proxies and monitors for which penalties and [the limits of one "
            + "source](security.md#limits) do not hold, for agents and for visitors")
    package let metrics = Key(
        "metrics", .text, shown: "none", option: CommandOption(value: "host:port|unix:path"),
        "address for [metrics](operations.md#metrics), `HOST:PORT` or `unix:PATH` with an absolute path")
    package let metricsPerName = Key(
        "metrics-per-name", .onOff, default: false, option: CommandOption(),
        "metrics of each name as well; needs `metrics`")
    package let metricsInsecureOk = Key(
        "metrics-insecure-ok", .onOff, default: false, option: CommandOption(),
        "allow other than loopback addresses in `metrics`")
    package let auth = Key(
        "auth", .text, shown: "[see there](modules.md#authenticators)",
        option: CommandOption(
            value: "file|open", words: ["file", "open"],
            help: "how agents are known: `file`, by the agents file, or `open`, any agent from anywhere; by default by "
                + "the agents file once it exists, until then agents of this machine only"),
        "the authenticator: `file`, `open`, `exec` or `webhook`; the last two need their table, and so a configuration "
            + "file")
    package let agentsFile = Key(
        "agents-file", .path, shown: "the credential `agents.toml`, or the file in the state directory",
        option: CommandOption(value: "file", completion: .file),
        "the [agents file](#the-agents-file)", more: "; only with `auth = \"file\"` or without `auth`")
    package let tlsCert = Key(
        "tls-cert", .path, shown: "a certificate of its own",
        option: CommandOption(value: "file", completion: .file),
        "a certificate from a public authority, PEM, with its chain; needs `tls-key`",
        more: ". A [renewed file](operations.md#renewed-certificates) is used without a restart")
    package let tlsKey = Key(
        "tls-key", .path, shown: "a key of its own", option: CommandOption(value: "file", completion: .file),
        "the key of that certificate, PEM, readable by its owner only")
    package let control = Key(
        "control", .text, shown: "`control.sock` in the runtime or the state directory",
        option: CommandOption(value: "path|none"),
        "the unix socket of [`diglett-server ctl`](operations.md#seeing-and-steering), as an absolute path, or `none`")
    package let controlGroup = Key(
        "control-group", .text, shown: "the gateway's user only", option: CommandOption(value: "group"),
        "the group, by name or number, that may use it")
    package let probe = Key(
        "probe", .onOff, default: false,
        "publish a name only when its backend [accepts connections](modules.md#registrars)")
    package let authExec = Key(
        "auth-exec", .table,
        "the program that [authenticates agents](#programs-and-web-services), with `auth = \"exec\"`")
    package let authWebhook = Key(
        "auth-webhook", .table,
        "the web service that [authenticates agents](#programs-and-web-services), with `auth = \"webhook\"`")
    package let registrar = Key(
        "registrar", .tables, default: [], "[registrars](#registrars), which publish names")
    package let limits = Key("limits", .table, "the gateway's [limits](#limits)")
}

/// Keys and options of both programs.
package enum CommonKeys {
    /// An option without a key in the file.
    package static let config = Key(
        "config", .path,
        option: CommandOption(short: "c", value: "file", completion: .tomlFile),
        "read these settings from a TOML file")
    static let debug = Key(
        "debug", .level(0...9), default: 0,
        option: CommandOption(short: "d", help: "log more: once for debug messages, twice for trace messages"),
        "1: debug messages, 2: trace messages; as an option repeated")
    static let logFormat = Key(
        "log-format", Form<LogFormat>.choice, default: .text,
        option: CommandOption(help: "how lines of the log are written; `json` for one object a line"),
        "`json`: [lines of the log](operations.md#the-log) as JSON objects")
    static let logStreams = Key(
        "log-streams", .onOff, default: false, option: CommandOption(),
        "log [each stream](operations.md#streams) when it ends")
}

extension Form where Value == [HostPort] {
    /// Addresses to listen on.
    static let listeners = Self.list { text, place throws(SettingsError) in
        guard let address = HostPort(text) else {
            let reason = AddressFault.reason(text, isPortNeeded: true, lowestPort: 0, form: AddressFault.listenForm)
            throw SettingsError(place, "'\(PeerText.escaped(text))' is not an address to listen on: \(reason)")
        }
        return address
    }
}

extension Form where Value == [Network] {
    static let networks = Self.list { text, place throws(SettingsError) in try Network(text, place: place) }
}

extension Form where Value == PublicPorts {
    static let publicPorts = Form<String>.text.map { text, place, _ throws(SettingsError) in
        try PublicPorts(text, place: place)
    }
}
