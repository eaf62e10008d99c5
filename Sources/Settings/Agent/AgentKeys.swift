package import ProxyProtocol
internal import Wire

/// The keys of an agent's file, and the options of `diglett`.
package final class AgentKeys: KeyTable {
    package static let name = "diglett"
    package static let optionHeading: String? = "option"
    package static let keys = AgentKeys()

    package let gateway = Key(
        "gateway",
        Form<String>.text.map { text, place, _ throws(SettingsError) in
            try GatewayAddress(text, defaultPort: WireConstant.defaultPort, place: place)
        }, shown: "required",
        option: CommandOption(short: "g", value: "gateway", help: "the gateway"),
        "`HOST`, `HOST:PORT` (20000 by default) or `diglett://TOKEN@HOST:PORT#sha256/PIN`")
    package let token = Key(
        "token", .text,
        option: CommandOption(
            short: "t", value: "token",
            help: "the token. Other users may see it in the process list for a moment; prefer --token-file"),
        "the token; a file with this key must be readable only by its owner")
    package let tokenFile = Key(
        "token-file", .path,
        option: CommandOption(
            value: "file", completion: .file,
            help: "a file with the token, read at each login, or `-` for standard input. Without a token, "
                + "`DIGLETT_TOKEN` in the environment is used"),
        "a file with the token, readable only by its owner; `-` is standard input, read to its end, without echo "
            + "on a terminal")
    package let pin = Key(
        "pin",
        Form<[String]>.list { pin, place throws(SettingsError) in
            if let fault = PinText.fault(of: pin) { throw SettingsError(place, fault) }
            return pin
        }, default: [], shown: "[none](protocol.md#transport)",
        option: CommandOption(
            value: "sha256/...",
            help:
                "the expected key of the gateway, as it prints it. By default the agent trusts a certificate of a public "
                + "authority, or the key that you accepted before", repeats: true),
        "the expected keys of the gateway; two while its key changes",
        more: ". `--pin` replaces the pins of the file and of the line in `gateway`")
    package let output = Key(
        "output", Form<AgentSettings.Output>.choice, default: .text,
        option: CommandOption(help: "output format: text, or `json` for one event per line"),
        "`json`: one event per line on standard output")
    package let once = Key(
        "once", .onOff, default: false,
        option: CommandOption(help: "exit instead of reconnecting"),
        "exit instead of reconnecting")
    package let v1 = Key(
        "v1", .onOff, default: false,
        option: CommandOption(
            help: "use protocol version 1, for a gateway of the original diglett. It is not authenticated"),
        "use [version 1](version-1.md), for a gateway of the original diglett")
    package let debug = CommonKeys.debug
    package let logFormat = CommonKeys.logFormat
    package let logStreams = CommonKeys.logStreams
    package let stateDir = Key(
        "state-dir", .path, shown: "see [the environment](#the-environment)",
        option: CommandOption(
            value: "dir", completion: .directory,
            help: "the directory for keys and known gateways. The default is in `~/.local/state`, for root in "
                + "`/var/lib`"),
        "the directory for [keys and known gateways](maintenance.md#state)")
    package let urlFile = Key(
        "url-file",
        .path,
        option: CommandOption(
            value: "file", completion: .file,
            help:
                "write the public addresses to a file, one per line, when all names are reachable. It is removed at the "
                + "end"),
        "[a file for the public addresses](scripting.md), one per line, written when all names are reachable")
    package let execOnReady = Key(
        "exec-on-ready", .commandLine, default: [],
        option: CommandOption(
            value: "command",
            help:
                "run a shell command when all names are reachable, with DIGLETT_URL in its environment. It is stopped "
                + "with the agent"),
        "[a command to run then](scripting.md): text, or a list with one text, is run by the shell; a longer list "
            + "is a program with its arguments")
    package let linkMSS = Key(
        "link-mss", .count(AgentSettings.segmentRange), shown: "what the network path allows",
        option: CommandOption(
            value: "bytes",
            help: "the largest TCP segment of a link in bytes, 536 to 8960. By default the network path decides"),
        "the largest TCP segment of a link in bytes, 536 to 8,960",
        more: "; [after large packets were lost](troubleshooting.md#large-packets-are-lost) the agent uses "
            + "1,200")
    let streamsPerLink = LimitKeys.streamsPerLink(
        "open streams per link, 1 to 65,535; the gateway [has the same key](#limits), and the lower value applies")
    let stallTimeout = LimitKeys.stallTimeout(
        "reset a stream whose backend accepts no bytes for this long, `1s` to `7d`; `\"0\"`: never")
    let halfCloseTimeout = LimitKeys.halfCloseTimeout()
    let resumeWindow = LimitKeys.resumeWindow(
        "how long names and streams wait for the next connection when this one breaks, `1s` to `1h`; `\"0\"`: not at "
            + "all. The gateway [has the same key](#limits), and the lower value applies. Not with `once`")
    let resumeMemory = LimitKeys.resumeMemory()
    /// On the command line, a text is `NAME` or `NAME=BACKEND`.
    package let expose = Key(
        "expose", .tables, default: [],
        option: CommandOption(
            short: "n", long: "name", value: "name", help: "the name under which BACKEND is exposed, or NAME=BACKEND",
            repeats: true),
        "the names; names on the command line replace those of the file")
}

/// The keys of a table `[[expose]]`. Their options apply to the names on the command line.
package final class ExposeKeys: KeyTable {
    package static let name = "expose"
    package static let optionHeading: String? = "option"
    package static let keys = ExposeKeys()

    let name = Key(
        "name",
        Form<String>.text.map { text, place, _ throws(SettingsError) in
            try AgentSettings.Expose.name(text, place: place)
        }, missing: "a table [[expose]] needs a name", option: CommandOption(short: "n", long: "name"),
        "the name to register: letters a-z, digits and hyphens, 63 at most")
    package let backend = Key(
        "backend", .backend, shown: "required", option: .argument("BACKEND"),
        "the service: `HOST:PORT`, `PORT` (on localhost) or `unix:PATH`")
    package let publicPort = Key(
        "public-port", .publicPort, shown: "the gateway chooses", option: CommandOption(value: "port"),
        "the public port to request", more: "; as an option only with a single name")
    package let proxyProtocol = Key(
        "proxy-protocol", Form<ProxyVersion>.choice,
        option: CommandOption(
            help: "send the visitors' addresses to the backends in a PROXY header, which they must support"),
        "`v1` or `v2`: [send the visitors' addresses to the backend](proxies.md#client-addresses)")
}

extension Form where Value == [String] {
    /// A shell command line, or a program and its arguments.
    fileprivate static let commandLine: Self = Self.texts.map { words, place, _ throws(SettingsError) in
        guard words.first != "" else {
            throw SettingsError(place, "is empty: write a shell command")
        }
        return words
    }
}

extension Form where Value == BackendAddress {
    /// In a file, the path of a unix socket is relative to the file's directory.
    static let backend = Self(
        .text,
        file: { section, key, _ throws(SettingsError) in
            guard let text = try section.string(key) else { return nil }
            let prefix = BackendAddress.unixPrefix
            let whole =
                text.hasPrefix(prefix) ? prefix + section.beside(String(text.dropFirst(prefix.count))) : text
            return try BackendAddress(whole, place: section.place(of: key))
        },
        option: { texts, place, _ throws(SettingsError) in
            try texts.last.map { text throws(SettingsError) in try BackendAddress(text, place: place) }
        })
}

extension Form where Value == UInt16 {
    /// The public port that the agent requests.
    static let publicPort = Self(
        .wholeNumber,
        file: { section, key, _ throws(SettingsError) in
            try section.count(key, in: 0...65_535).map { UInt16($0) }
        },
        option: { texts, place, _ throws(SettingsError) in
            guard let text = texts.last else { return nil }
            guard let port = HostPort.port(text), port > 0 else {
                throw SettingsError(place, "'\(PeerText.escaped(text))' is not a port from 1 to 65535")
            }
            return port
        })
}
