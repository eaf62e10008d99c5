/// The limits that an operator can set: the table `[limits]` of a gateway. An agent has some of these keys too.
///
/// All other limits are constants (`docs/security.md`, Limits). Counts and bytes are positive; times are in
/// milliseconds.
package struct LimitSettings: Equatable, Sendable {
    /// Concurrent visitors; nil for as many as descriptors and memory allow, up to the default.
    package var visitors: Int?
    /// Concurrent visitors of one source: enough for 40 browsers with 6 connections each behind one address.
    package var visitorsPerSource = 256
    /// New visitors of one source per second; twice as many may arrive at once.
    package var visitorsPerSecond = 100
    /// Concurrent links of agents; nil for as many as descriptors allow, up to the default.
    package var agents: Int?
    /// Links of one identity. At an open gateway all programs of one machine share an identity.
    package var linksPerAgent = 16
    /// Names of one link; the authenticator can set a different number for an agent.
    package var namesPerLink = 100
    /// Streams of one link; the lower value of both ends applies. The authenticator can set another number for an
    /// agent.
    package var streamsPerLink = 4_096
    /// Bytes that may be queued or under way to the program; nil for a share of the memory that the process may use.
    package var memory: Int?
    /// From an agent's TCP connection to the end of its TLS handshake.
    package var handshakeTimeout: UInt64 = 10_000
    /// From an agent's TCP connection to its LOGIN.
    package var loginTimeout: UInt64 = 15_000
    /// How long a stream may be unable to write received bytes to its edge; 0 for no limit.
    package var stallTimeout: UInt64 = 0
    /// How long a stream with one ended direction may be idle; 0 for no limit.
    package var halfCloseTimeout: UInt64 = 0
    /// How long names and streams of a broken link wait for the agent; 0: not at all.
    package var resumeWindow: UInt64 = 60_000
    /// Bytes that a link keeps for the case that its connection breaks, at most.
    package var resumeMemory = 16 << 20

    /// Version 1 links of one identity; each has one name.
    package var version1LinksPerAgent: Int { self.namesPerAgent }

    /// A sixteenth of all names. One identity can hold more only if one of its links can.
    private static let usualNamesPerAgent = 256

    /// Names that one identity can hold on all its links together; the authenticator can set a different number for it.
    package var namesPerAgent: Int {
        min(self.linksPerAgent * self.namesPerLink, max(self.namesPerLink, Self.usualNamesPerAgent))
    }

    /// More visitors need more descriptors than Linux allows a process by default (fs.nr_open, 1,048,576).
    static let visitorRange = 1...1_048_576
    /// A higher limit per second has no effect.
    static let rateRange = 1...1_000_000
    /// No field limits this, but a gateway has only 65,535 ports for the names of agents.
    static let agentRange = 1...65_535
    /// WELCOME has a 16-bit field for it, and a gateway has at most 4,096 names.
    static let nameRange = 1...4_096
    /// HELLO has a 16-bit field for it.
    static let streamRange = 1...65_535
    /// From the minimum for a few streams (16 KiB each) to the address space of a process.
    static let memoryRange = (16 << 20)...(64 << 40)
    /// Deadlines are checked once a second, and five minutes are enough for a handshake over a modem.
    static let loginRange: ClosedRange<UInt64> = 1_000...300_000
    /// At most a week. For connections with longer pauses, turn the timeout off.
    static let idleRange: ClosedRange<UInt64> = 1_000...604_800_000

    /// Deadlines are checked once a second. A visitor rarely waits for an hour.
    static let resumeRange: ClosedRange<UInt64> = 1_000...3_600_000
    /// From what the protocol requires to a gibibyte, which lasts for 80 Gbit/s at 100 ms.
    static let resumeMemoryRange = (64 << 10)...(1 << 30)

    package init() {}

    /// - Parameter reader: reads the table `[limits]`.
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
        self.resumeWindow = reader.value(keys.resumeWindow)
        self.resumeMemory = reader.value(keys.resumeMemory)
        if self.loginTimeout < self.handshakeTimeout, reader.problems.found.count == known {
            reader.add(
                reader.isGiven(keys.loginTimeout) ? keys.loginTimeout : keys.handshakeTimeout,
                "'login-timeout' (\(DurationText.of(self.loginTimeout))) must not be shorter than 'handshake-timeout' "
                    + "(\(DurationText.of(self.handshakeTimeout))): both start with the TCP connection")
        }
        reader.finish(LimitKeys.self)
    }

    /// The limits of an agent, whose keys are at the top level of its file.
    init(agent reader: SettingsReader) {
        let keys = AgentKeys.keys
        self.streamsPerLink = reader.value(keys.streamsPerLink)
        self.stallTimeout = reader.value(keys.stallTimeout)
        self.halfCloseTimeout = reader.value(keys.halfCloseTimeout)
        self.resumeWindow = reader.value(keys.resumeWindow)
        self.resumeMemory = reader.value(keys.resumeMemory)
    }
}
