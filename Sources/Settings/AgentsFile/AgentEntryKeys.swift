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
                throw SettingsError(place, "'\(name)': \(AgentEntry.nameRule)")
            }
            return name
        }, missing: "a table [[agent]] needs a name", option: .argument("NAME"),
        "the agent's name in logs and tokens: letters a-z, digits and inner hyphens, 63 at most")
    let token = Key(
        "token", .tokenHash,
        "`sha256:` and the hash of its token's secret; written by `agent add` (without `--pin`) and `agent rotate`")
    package let v1Token = Key(
        "v1-token", .tokenHash, option: CommandOption(long: "v1", help: "make a token for protocol version 1 as well"),
        "the hash of its token for [version 1](version-1.md), which is valid for version 1 only")
    let formerToken = Key(
        "former-token", .tokenHash,
        "the hash of the token before, which is valid until `former-token-until`; written by `agent rotate --grace`, "
            + "removed by `agent rotate` without it")
    let formerV1Token = Key("former-v1-token", .tokenHash, "the same for version 1")
    let formerTokenUntil = Key(
        "former-token-until", .time, shown: "required with these",
        "until when, as in `expires`; links that logged in with a former token are closed then")
    package let pins = Key(
        "pins",
        Form<[String]>.list { pin, place throws(SettingsError) in
            if let fault = PinText.fault(of: pin) { throw SettingsError(place, fault) }
            return pin
        }, default: [],
        option: CommandOption(
            long: "pin", value: "sha256/...", help: "know it by this key of `diglett key` instead of a token",
            repeats: true),
        "keys of `diglett key`, accepted besides the token or instead of it",
        more: "; with `--pin`, `agent add` creates no token, also not for version 1")
    package let names = Key(
        "names",
        Form<[NamePattern]>.list { text, place throws(SettingsError) in
            guard let pattern = NamePattern(text) else { throw SettingsError(place, "'\(text)': \(NamePattern.rule)") }
            return pattern
        }, default: [], shown: "none",
        option: CommandOption(
            value: "patterns", help: "the names that it may use: `api`, `app-*`; with commas between them",
            repeats: true),
        "the names that it may use; up to four `*` in each stand for any characters. No two agents may share a name")
    package let ports = Key(
        "ports",
        Form<[PortRange]>.list { text, place throws(SettingsError) in try PortRange(text, place: place) }, default: [],
        shown: "those of the gateway", option: CommandOption(value: "low-high", repeats: true),
        "the public ports that it may have, `LOW-HIGH` or single ones", more: ", as far as `expose-ports` allows them")
    package let expires = Key(
        "expires", .time, shown: "never",
        option: CommandOption(
            value: "time", help: "until when: `90d` or `12h` from now, or `2027-02-21`; the default is never"),
        "until when, `2027-02-21` or `2027-02-21T12:00:00Z`",
        more: "; as an option also `90d`, `12h`, `30m`, `45s` from now")
    let disabled = Key("disabled", .onOff, default: false, "keep it out")
    let maxLinks = Key(
        "max-links", .count(LimitSettings.agentRange), shown: "the gateway's",
        "links at once, 1 to 65,535; the [limits](#limits) of the gateway apply as well")
    let maxNames = Key(
        "max-names", .count(LimitSettings.nameRange), shown: "the gateway's",
        "names of each of its links and over all of them, 1 to 4,096")
    let maxStreams = Key(
        "max-streams", .count(LimitSettings.streamRange), shown: "the gateway's",
        "visitors at once on each of its links, 1 to 65,535")
}

extension Form where Value == [UInt8] {
    /// `sha256:` and 64 hexadecimal digits.
    static let tokenHash = Form<String>.text.map { text, place, _ throws(SettingsError) in
        guard text.hasPrefix("sha256:"), let bytes = Hex.bytes(text.dropFirst(7), count: AgentEntry.hashSize) else {
            // Do not repeat the text: it may be the token.
            throw SettingsError(
                place,
                "is not the hash of a token, sha256: and 64 hexadecimal digits: "
                    + "make token and entry with 'diglett-server agent add' or 'agent rotate'")
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
