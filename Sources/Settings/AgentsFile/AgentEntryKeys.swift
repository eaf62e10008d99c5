internal import Wire

/// The keys of an agents file.
package final class AgentsKeys: KeyTable {
    package static let name = "agents"
    package static let keys = AgentsKeys()

    let agent = Key("agent", .tables, default: [], "a table `[[agent]]` for each agent")
}

/// The keys of a table `[[agent]]`, and the options of `diglett-server agent add`.
package final class AgentEntryKeys: KeyTable {
    package static let name = "agent"
    package static let optionHeading: String? = "option of `agent add`"
    package static let keys = AgentEntryKeys()

    let name = Key(
        "name",
        Form<String>.text.map { name, place, _ throws(SettingsError) in
            guard AgentEntry.isValid(name: name) else {
                throw SettingsError(place, "'\(name)' is not an agent's name: \(AgentEntry.nameRule)")
            }
            return name
        }, missing: "a table [[agent]] needs a name", option: .argument("NAME"),
        "the agent's name in logs and tokens: letters a-z, digits and hyphens, 63 at most")
    let token = Key(
        "token", .tokenHash,
        "`sha256:` and the hash of the token's secret; written by `agent add` (without `--pin`) and `agent rotate`")
    package let v1Token = Key(
        "v1-token", .tokenHash, option: CommandOption(long: "v1", help: "also create a token for protocol version 1"),
        "the hash of its token for [version 1](version-1.md), valid only for version 1")
    let formerToken = Key(
        "former-token", .tokenHash,
        "the hash of the previous token, valid until `former-token-until`; written by `agent rotate --grace`, "
            + "removed by `agent rotate` without it")
    let formerV1Token = Key("former-v1-token", .tokenHash, "the same for version 1")
    let formerTokenUntil = Key(
        "former-token-until", .time, shown: "required with these",
        "the end of the former token, as in `expires`; links that logged in with it are closed then")
    package let pins = Key(
        "pins",
        Form<[String]>.list { pin, place throws(SettingsError) in
            if let fault = PinText.fault(of: pin) { throw SettingsError(place, fault) }
            return pin
        }, default: [],
        option: CommandOption(
            long: "pin", value: "sha256/...",
            help: "identify the agent by this key of `diglett key` instead of a token",
            repeats: true),
        "keys of `diglett key`, accepted in addition to the token or instead of it",
        more: "; with `--pin`, `agent add` creates no token")
    package let names = Key(
        "names",
        Form<[NamePattern]>.list { text, place throws(SettingsError) in
            guard let pattern = NamePattern(text) else {
                throw SettingsError(place, "'\(text)' is not a pattern: \(NamePattern.rule)")
            }
            return pattern
        }, default: [], shown: "none",
        option: CommandOption(
            value: "patterns", help: "the names it may use, separated by commas: `api,app-*`",
            repeats: true),
        "the names it may use; up to four `*` in each match any characters. Two agents must not share a name")
    package let ports = Key(
        "ports",
        Form<[PortRange]>.list { text, place throws(SettingsError) in try PortRange(text, place: place) }, default: [],
        shown: "those of the gateway", option: CommandOption(value: "low-high", repeats: true),
        "the public ports it may use, `LOW-HIGH` or single ones", more: ", as far as `expose-ports` allows them")
    package let expires = Key(
        "expires", .time, shown: "never",
        option: CommandOption(
            value: "time", help: "when access ends: `90d` or `12h` from now, or `2027-02-21`. By default never"),
        "when access ends, `2027-02-21` or `2027-02-21T12:00:00Z`",
        more: "; as an option also `90d`, `12h`, `30m`, `45s` from now")
    let disabled = Key("disabled", .onOff, default: false, "refuse this agent")
    let maxLinks = Key(
        "max-links", .count(LimitSettings.agentRange), shown: "the gateway's",
        "open links, 1 to 65,535; the [limits](#limits) of the gateway apply too")
    let maxNames = Key(
        "max-names", .count(LimitSettings.nameRange), shown: "the gateway's",
        "names over all its links, and of each link, 1 to 4,096")
    let maxStreams = Key(
        "max-streams", .count(LimitSettings.streamRange), shown: "the gateway's",
        "open streams per link, 1 to 65,535")
}

extension Form where Value == [UInt8] {
    /// `sha256:` and 64 hexadecimal digits.
    static let tokenHash = Form<String>.text.map { text, place, _ throws(SettingsError) in
        guard text.hasPrefix("sha256:"), let bytes = Hex.bytes(text.dropFirst(7), count: AgentEntry.hashSize) else {
            // Do not repeat the text: it may be the token.
            throw SettingsError(
                place,
                "is not a token hash (sha256: and 64 hexadecimal digits): "
                    + "create the token with 'diglett-server agent add' or 'agent rotate'")
        }
        return bytes
    }
}

extension Form where Value == Int64 {
    /// A date, in seconds since 1970.
    static let time = Form<String>.text.map { text, place, _ throws(SettingsError) in
        guard let seconds = Timestamp.seconds(text) else {
            throw SettingsError(place, "'\(text)' is not a date: write 2027-02-21 or 2027-02-21T12:00:00Z")
        }
        return seconds
    }
}
