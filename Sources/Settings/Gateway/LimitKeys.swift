/// The keys of the table `[limits]` of a gateway.
package final class LimitKeys: KeyTable {
    package static let name = "limits"
    package static let keys = LimitKeys()

    private static let standard = LimitSettings()

    let visitors = Key(
        "visitors", .count(LimitSettings.visitorRange), shown: "8,192 at most",
        "open visitors' connections, 1 to 1,048,576; by default as many as file descriptors and memory allow, up to 8,192"
    )
    let visitorsPerSource = Key(
        "visitors-per-source", .count(LimitSettings.visitorRange), default: standard.visitorsPerSource,
        "open visitors' connections per source, 1 to 1,048,576. A source is an IPv4 address or an IPv6 /64; not for loopback "
            + "addresses")
    let visitorsPerSecond = Key(
        "visitors-per-second", .count(LimitSettings.rateRange), default: standard.visitorsPerSecond,
        "new visitors' connections per source and second, 1 to 1,000,000, with bursts of twice as many. Not for loopback "
            + "addresses")
    let agents = Key(
        "agents", .count(LimitSettings.agentRange), shown: "1,024 at most",
        "links of all agents, 1 to 65,535; by default as many as file descriptors allow, up to 1,024")
    let linksPerAgent = Key(
        "links-per-agent", .count(LimitSettings.agentRange), default: standard.linksPerAgent,
        "links per agent, 1 to 65,535; with `auth = \"open\"` the programs of one machine are one agent")
    let namesPerLink = Key(
        "names-per-link", .count(LimitSettings.nameRange), default: standard.namesPerLink,
        "names per link, 1 to 4,096")
    let streamsPerLink = LimitKeys.streamsPerLink(
        "open streams per link, 1 to 65,535; an agent [has the same key](#diglett), and the lower value applies")
    let memory = Key(
        "memory", .size(LimitSettings.memoryRange), shown: "60 % of the memory",
        "bytes that may be queued in the gateway, `16M` to `64T`, with K, M, G or T for powers of 1,024. The memory is "
            + "the smallest of the machine's, RLIMIT_AS and the cgroup's limit; at most 90 % of it is used. `visitors` "
            + "also depends on this value: 88 KiB each, of five quarters of it")
    let handshakeTimeout = Key(
        "handshake-timeout", .duration(LimitSettings.loginRange), default: standard.handshakeTimeout,
        "time from an agent's connection to the end of its TLS handshake, `1s` to `5m`")
    let loginTimeout = Key(
        "login-timeout", .duration(LimitSettings.loginRange), default: standard.loginTimeout,
        "time from an agent's connection to its login, `1s` to `5m`; at least `handshake-timeout`")
    let stallTimeout = LimitKeys.stallTimeout(
        "reset a stream whose receiver accepts no bytes for this long, `1s` to `7d`; `\"0\"`: never")
    let halfCloseTimeout = LimitKeys.halfCloseTimeout()
    let resumeWindow = LimitKeys.resumeWindow(
        "how long the names and streams of a broken link [wait for the agent](maintenance.md#what-visitors-notice), `1s` "
            + "to `1h`; `\"0\"`: not at all. An agent [has the same key](#diglett), and the lower value applies")
    let resumeMemory = LimitKeys.resumeMemory()

    /// These five keys exist for agents too.
    static func streamsPerLink(_ meaning: String) -> Key<Int> {
        Key("streams-per-link", .count(LimitSettings.streamRange), default: self.standard.streamsPerLink, meaning)
    }

    static func stallTimeout(_ meaning: String) -> Key<UInt64> {
        Key(
            "stall-timeout", .duration(LimitSettings.idleRange, canBeNever: true), default: self.standard.stallTimeout,
            meaning)
    }

    static func resumeWindow(_ meaning: String) -> Key<UInt64> {
        Key(
            "resume-window", .duration(LimitSettings.resumeRange, canBeNever: true),
            default: self.standard.resumeWindow,
            meaning)
    }

    static func resumeMemory() -> Key<Int> {
        Key(
            "resume-memory", .size(LimitSettings.resumeMemoryRange), default: self.standard.resumeMemory,
            "bytes that a link keeps at most for the case that its connection breaks, `64K` to `1G`. A link over a long "
                + "distance needs its speed times the round trip")
    }

    static func halfCloseTimeout() -> Key<UInt64> {
        Key(
            "half-close-timeout", .duration(LimitSettings.idleRange, canBeNever: true),
            default: self.standard.halfCloseTimeout,
            "reset a stream that is closed in one direction and idle in the other for this long, `1s` to `7d`; `\"0\"`: "
                + "never. Not with version 1")
    }
}
