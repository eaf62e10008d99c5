internal import Wire

/// The keys of a gateway's file, and the options of `diglett-server`.
package final class GatewayKeys: KeyTable {
    package static let name = "gateway"
    package static let optionHeading: String? = "option"
    package static let keys = GatewayKeys()

    package let listen = Key(
        "listen", .listeners, default: [], shown: "`0.0.0.0:20000` and `[::]:20000`",
        option: CommandOption(short: "l", value: "host:port", repeats: true),
        "addresses to accept agents on, `HOST:PORT`")
    package let listenV1 = Key(
        "listen-v1", .listeners, default: [], shown: "none", option: CommandOption(value: "host:port", repeats: true),
        "addresses to accept agents of the original diglett on ([version 1](version-1.md))")
    package let v1InsecureOk = Key(
        "v1-insecure-ok", .onOff, default: false, option: CommandOption(),
        "allow non-loopback addresses in `listen-v1`")
    package let debug = CommonKeys.debug
    package let logFormat = CommonKeys.logFormat
    package let logStreams = CommonKeys.logStreams
    package let stateDir = Key(
        "state-dir", .path, shown: "see [the environment](#the-environment)",
        option: CommandOption(
            value: "dir", completion: .directory,
            help:
                "the directory for key, ports and agents. The default is `$STATE_DIRECTORY`, `/var/lib/diglett-server` or in "
                + "`~/.local/state`"),
        "the directory for [key, ports and agents](maintenance.md#state)")
    package let exposeBind = Key(
        "expose-bind", .texts, default: ["127.0.0.1"], shown: "`127.0.0.1`",
        option: CommandOption(
            value: "host", help: "address to bind public ports to; `::` for all IPv4 and IPv6 addresses", repeats: true),
        "addresses to bind public ports to",
        more: ", 16 at most, without brackets. `::` is all of IPv6, and all of IPv4 if the list has no IPv4 address; "
            + "`0.0.0.0` is all of IPv4. A name has the same port on all of them; agents and proxies receive the first. While "
            + "the machine lacks one of them, names wait; `check` reports it")
    package let exposePorts = Key(
        "expose-ports", .publicPorts, default: .any, shown: "any from 1024 on",
        option: CommandOption(value: "low-high|none"),
        "ports for names, `LOW-HIGH` or a single one; `none` with `expose-sockets`",
        more: "; ports below 1024 only if they are in this range")
    package let exposeSockets = Key(
        "expose-sockets", .text, shown: "none",
        option: CommandOption(value: "dir", completion: .directory),
        "a directory (absolute path) in which each name has "
            + "[a unix socket](proxies.md#unix-sockets-instead-of-ports)")
    package let exposeSocketsGroup = Key(
        "expose-sockets-group", .text, shown: "the gateway's user only", option: CommandOption(value: "group"),
        "the group (name or number) that may connect to these sockets")
    package let publicURL = Key(
        "public-url", .text, shown: "the address of the public port",
        "the address that agents show: HOST:PORT or an http or https URL without query, with "
            + "`{name}` for the name")
    package let acceptProxyProtocol = Key(
        "accept-proxy-protocol", .texts, default: [], shown: "none",
        option: CommandOption(value: "network|unix", repeats: true),
        "addresses and networks of trusted proxies, which [send client "
            + "addresses](proxies.md#client-addresses) in PROXY headers", more: "; `unix` for those on unix sockets")
    package let trustedNetworks = Key(
        "trusted-networks", .networks, default: [], shown: "none",
        "addresses and networks of agents, proxies and monitors that are exempt from penalties and from [the limits per "
            + "source](security.md#limits)")
    package let metrics = Key(
        "metrics", .text, shown: "none", option: CommandOption(value: "host:port|unix:path"),
        "address to serve [metrics](monitoring.md#metrics) on, `HOST:PORT` or `unix:PATH` with an absolute path")
    package let metricsPerName = Key(
        "metrics-per-name", .onOff, default: false, option: CommandOption(),
        "also serve metrics of each name; needs `metrics`")
    package let metricsInsecureOk = Key(
        "metrics-insecure-ok", .onOff, default: false, option: CommandOption(),
        "allow non-loopback addresses in `metrics`")
    package let auth = Key(
        "auth", .text, shown: "[the agents file, if it exists](agents.md)",
        option: CommandOption(
            value: "file|open", words: ["file", "open"],
            help:
                "which agents to accept: `file`, those in the agents file, or `open`, every agent. By default those in "
                + "the agents file; until it exists, only agents on this machine"),
        "the authenticator: `file`, `open`, `exec` or `webhook`; the last two need their table and so a configuration "
            + "file")
    package let agentsFile = Key(
        "agents-file", .path, shown: "the credential `agents.toml`, or the file in the state directory",
        option: CommandOption(value: "file", completion: .file),
        "the [agents file](#the-agents-file)", more: "; only with `auth = \"file\"` or without `auth`")
    package let tlsCert = Key(
        "tls-cert", .path, shown: "a generated certificate",
        option: CommandOption(value: "file", completion: .file),
        "a certificate from a public authority, PEM, with its chain; needs `tls-key`",
        more: ". A [renewed file](https.md#renewed-certificates) is loaded without a restart")
    package let tlsKey = Key(
        "tls-key", .path, shown: "a generated key", option: CommandOption(value: "file", completion: .file),
        "the key of that certificate, PEM, readable only by its owner")
    package let control = Key(
        "control", .text, shown: "`control.sock` in the runtime or the state directory",
        option: CommandOption(value: "path|none"),
        "the unix socket (absolute path) of [`diglett-server ctl`](monitoring.md#inspect-and-control), or `none`")
    package let controlGroup = Key(
        "control-group", .text, shown: "the gateway's user only", option: CommandOption(value: "group"),
        "the group (name or number) that may use the control socket")
    package let probe = Key(
        "probe", .onOff, default: false,
        "publish a name only when its backend [accepts connections](proxies.md#registrars)")
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
        option: CommandOption(short: "d", help: "log debug messages; twice: also trace messages"),
        "1: debug messages, 2: also trace messages; as an option, repeat it")
    static let logFormat = Key(
        "log-format", Form<LogFormat>.choice, default: .text,
        option: CommandOption(help: "log format: text, or `json` for one object per line"),
        "`json`: [log lines](monitoring.md#the-log) as JSON objects")
    static let logStreams = Key(
        "log-streams", .onOff, default: false, option: CommandOption(),
        "log [each stream](monitoring.md#streams) when it ends")
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
