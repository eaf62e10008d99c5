internal import Wire

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

    /// - Parameters:
    ///   - section: the table `[limits]`; nil without one.
    ///   - problems: what is wrong goes there, and the default takes its place.
    init(_ section: TOMLFile.Section?, _ problems: Problems) {
        guard let section else { return }
        func set<Value>(_ value: inout Value, _ read: () throws(SettingsError) -> Value?) {
            problems.attempt { () throws(SettingsError) in if let given = try read() { value = given } }
        }
        func set(_ value: inout Int, _ key: String, _ range: ClosedRange<Int>) {
            set(&value) { () throws(SettingsError) in try section.count(key, in: range) }
        }
        func set(_ value: inout Int?, _ key: String, _ range: ClosedRange<Int>) {
            set(&value) { () throws(SettingsError) in try section.count(key, in: range).map { .some($0) } }
        }
        func set(_ value: inout UInt64, _ key: String, _ range: ClosedRange<UInt64>, canBeNever: Bool) {
            set(&value) { () throws(SettingsError) in
                try section.duration(key, in: range, canBeNever: canBeNever)
            }
        }
        set(&self.visitors, "visitors", Self.visitorRange)
        set(&self.visitorsPerSource, "visitors-per-source", Self.visitorRange)
        set(&self.visitorsPerSecond, "visitors-per-second", Self.rateRange)
        set(&self.agents, "agents", Self.agentRange)
        set(&self.linksPerAgent, "links-per-agent", Self.agentRange)
        set(&self.namesPerLink, "names-per-link", Self.nameRange)
        set(&self.streamsPerLink, "streams-per-link", Self.streamRange)
        set(&self.memory) { () throws(SettingsError) in
            try section.byteCount("memory", in: Self.memoryRange).map { .some($0) }
        }
        set(&self.handshakeTimeout, "handshake-timeout", Self.loginRange, canBeNever: false)
        set(&self.loginTimeout, "login-timeout", Self.loginRange, canBeNever: false)
        set(&self.stallTimeout, "stall-timeout", Self.idleRange, canBeNever: true)
        set(&self.halfCloseTimeout, "half-close-timeout", Self.idleRange, canBeNever: true)
        if self.loginTimeout < self.handshakeTimeout {
            problems.add(
                section.place(of: section.has("login-timeout") ? "login-timeout" : "handshake-timeout"),
                "'login-timeout' (\(DurationText.of(self.loginTimeout))) must not be shorter than 'handshake-timeout' "
                    + "(\(DurationText.of(self.handshakeTimeout))): both begin with the TCP connection")
        }
        section.finish(problems)
    }

    /// Of an agent, whose keys are in the file itself.
    init(agent section: TOMLFile.Section?) throws(SettingsError) {
        guard let section else { return }
        self.streamsPerLink = try section.count("streams-per-link", in: Self.streamRange) ?? self.streamsPerLink
        self.stallTimeout =
            try section.duration("stall-timeout", in: Self.idleRange, canBeNever: true) ?? self.stallTimeout
        self.halfCloseTimeout =
            try section.duration("half-close-timeout", in: Self.idleRange, canBeNever: true) ?? self.halfCloseTimeout
    }
}

/// Spans of time as they are written in files: `90d`, `12h`, `30m`, `45s`.
enum DurationText {
    /// In the largest unit that leaves no rest.
    static func of(_ milliseconds: UInt64) -> String {
        let seconds = milliseconds / 1_000
        let units: [(UInt64, String)] = [(86_400, "d"), (3_600, "h"), (60, "m")]
        for (size, unit) in units where seconds > 0 && seconds % size == 0 { return "\(seconds / size)\(unit)" }
        return "\(seconds)s"
    }
}

extension TOMLFile.Section {
    /// A whole number of a range.
    func count(_ key: String, in range: ClosedRange<Int>) throws(SettingsError) -> Int? {
        guard let count = try self.integer(key) else { return nil }
        guard range.contains(count) else {
            throw SettingsError(
                self.place(of: key), "'\(key)' must be from \(range.lowerBound) to \(range.upperBound), not \(count)")
        }
        return count
    }

    /// A span of time in milliseconds.
    ///
    /// - Parameter canBeNever: whether `0` is allowed too; it is returned as 0.
    func duration(
        _ key: String, in range: ClosedRange<UInt64>, canBeNever: Bool
    ) throws(SettingsError) -> UInt64? {
        guard let text = try self.string(key) else { return nil }
        if canBeNever, text == "0" || text == "0s" { return 0 }
        let never = canBeNever ? "\"0\" (never) or " : ""
        let bounds = "\(DurationText.of(range.lowerBound)) to \(DurationText.of(range.upperBound))"
        guard let seconds = Timestamp.span(text), range.contains(UInt64(seconds) * 1_000) else {
            throw SettingsError(
                self.place(of: key),
                "'\(key)' must be \(never)a duration from \(bounds), such as \"30s\" or \"5m\", "
                    + "not '\(PeerText.escaped(text))'")
        }
        return UInt64(seconds) * 1_000
    }

    /// A number of bytes: `256M`, with K, M, G or T for powers of 1,024, or without.
    func byteCount(_ key: String, in range: ClosedRange<Int>) throws(SettingsError) -> Int? {
        guard let text = try self.string(key) else { return nil }
        let shifts: [Character: Int] = ["K": 10, "M": 20, "G": 30, "T": 40]
        let shift = text.last.flatMap { shifts[$0] } ?? 0
        let digits = shift == 0 ? text[...] : text.dropLast()
        guard digits.allSatisfy({ $0.isASCII && $0.isNumber }), let count = Int(digits),
            count <= range.upperBound >> shift, range.contains(count << shift)
        else {
            throw SettingsError(
                self.place(of: key),
                "'\(key)' must be a size from \(range.lowerBound >> 20)M to \(range.upperBound >> 40)T, such as "
                    + "\"512M\" or \"2G\", not '\(PeerText.escaped(text))'")
        }
        return count << shift
    }
}
