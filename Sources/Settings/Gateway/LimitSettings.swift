/// The bounds that an operator can set: the table `[limits]` of a gateway, some of whose keys an agent has too.
///
/// All other bounds are constants (`docs/security.md`, Limits). Counts and bytes are positive; times are milliseconds.
package struct LimitSettings: Equatable, Sendable {
    /// Visitors at once; nil: as many as descriptors and memory allow, up to the default.
    package var visitors: Int?
    /// Visitors of one source at once: 40 browsers of 6 connections each behind one address.
    package var visitorsPerSource = 256
    /// Visitors of one source in a second; twice as many may come at once.
    package var visitorsPerSecond = 100
    /// Links of agents at once; nil: as many as descriptors allow, up to the default.
    package var agents: Int?
    /// Links of one identity: at an open gateway the programs of one machine share it.
    package var linksPerAgent = 16
    /// Names of one link; an agent can have a number of its own.
    package var namesPerLink = 100
    /// Streams of one link; the lower value of both ends holds, and an agent can have a number of its own.
    package var streamsPerLink = 4_096
    /// Bytes that may wait or be on their way to the program; nil: a share of what the process may have.
    package var memory: Int?
    /// From the TCP connection of an agent to the end of its TLS handshake.
    package var handshakeTimeout: UInt64 = 10_000
    /// From the TCP connection of an agent to its LOGIN.
    package var loginTimeout: UInt64 = 15_000
    /// How long a stream may be unable to write on what it has received; 0: no limit.
    package var stallTimeout: UInt64 = 0
    /// How long a stream with one ended direction may be silent; 0: no limit.
    package var halfCloseTimeout: UInt64 = 0

    /// Links of one identity that speak version 1: each has one name.
    package var version1LinksPerAgent: Int { self.namesPerAgent }

    /// A sixteenth of all names: one identity takes no more of them unless its links may have more.
    private static let usualNamesPerAgent = 256

    /// Names that one identity can hold at once, by all its links, unless it has a number of its own.
    package var namesPerAgent: Int {
        min(self.linksPerAgent * self.namesPerLink, max(self.namesPerLink, Self.usualNamesPerAgent))
    }

    /// More visitors than that need more descriptors than Linux gives a process by default (fs.nr_open, 1,048,576).
    static let visitorRange = 1...1_048_576
    /// Beyond that a limit of each second limits nothing.
    static let rateRange = 1...1_000_000
    /// Agents and their links are numbered nowhere in 16 bits, but a gateway has 65,535 ports for their names.
    static let agentRange = 1...65_535
    /// WELCOME has 16 bits for it, and a gateway has 4,096 names at most.
    static let nameRange = 1...4_096
    /// HELLO has 16 bits for it.
    static let streamRange = 1...65_535
    /// From what a few streams need at all (16 KiB each) to the address space of a process.
    static let memoryRange = (16 << 20)...(64 << 40)
    /// Deadlines are looked at once a second; in five minutes even a modem shakes hands.
    static let loginRange: ClosedRange<UInt64> = 1_000...300_000
    /// A week: connections that pause for longer are better never ended.
    static let idleRange: ClosedRange<UInt64> = 1_000...604_800_000

    package init() {}

    /// - Parameter reader: of the table `[limits]`.
    init(_ reader: SettingsReader) {
        let keys = LimitKeys.keys
        let known = reader.problems.found.count
        self.visitors = reader.value(keys.visitors)
        self.visitorsPerSource = reader.value(keys.visitorsPerSource)
        self.visitorsPerSecond = reader.value(keys.visitorsPerSecond)
        self.agents = reader.value(keys.agents)
        self.linksPerAgent = reader.value(keys.linksPerAgent)
        self.namesPerLink = reader.value(keys.namesPerLink)
        self.streamsPerLink = reader.value(keys.streamsPerLink)
        self.memory = reader.value(keys.memory)
        self.handshakeTimeout = reader.value(keys.handshakeTimeout)
        self.loginTimeout = reader.value(keys.loginTimeout)
        self.stallTimeout = reader.value(keys.stallTimeout)
        self.halfCloseTimeout = reader.value(keys.halfCloseTimeout)
        if self.loginTimeout < self.handshakeTimeout, reader.problems.found.count == known {
            reader.add(
                reader.isGiven(keys.loginTimeout) ? keys.loginTimeout : keys.handshakeTimeout,
                "'login-timeout' (\(DurationText.of(self.loginTimeout))) must not be shorter than 'handshake-timeout' "
                    + "(\(DurationText.of(self.handshakeTimeout))): both start with the TCP connection")
        }
        reader.finish(LimitKeys.self)
    }

    /// Of an agent, whose keys are in the file itself.
    init(agent reader: SettingsReader) {
        let keys = AgentKeys.keys
        self.streamsPerLink = reader.value(keys.streamsPerLink)
        self.stallTimeout = reader.value(keys.stallTimeout)
        self.halfCloseTimeout = reader.value(keys.halfCloseTimeout)
    }
}
