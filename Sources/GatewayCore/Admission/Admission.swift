package import Timing

/// Where a connection comes from.
package struct Source: Hashable, Sendable {
    /// Who vouches for it. Behind an address of the machine itself, and behind one that the operator trusts, there may be
    /// many agents, users and proxies.
    package enum Standing: Hashable, Sendable {
        case stranger
        /// No penalties, and no bounds for its visitors.
        case ownMachine
        /// The same, and no bounds for its connections and logins.
        case trusted
    }

    /// An IPv4 address, or the /64 of an IPv6 address.
    package let key: UInt64
    package let standing: Standing

    package init(key: UInt64, standing: Standing = .stranger) {
        self.key = key
        self.standing = standing
    }
}

/// The bounds on strangers at the agent port.
package struct AdmissionLimits: Sendable {
    /// Connections that have not logged in.
    package var strangers = 256
    /// The same from one source.
    package var strangersPerSource = 16
    /// Logins that the authenticator is at work on. It may be slow, and each is a connection with its buffers.
    package var logins = 1_024
    /// The same from one source: the agents of one office that all reconnect at once. Agents beyond that try again.
    package var loginsPerSource = 64
    /// Penalties below this are not enforced, so that one slip costs nothing.
    package var enforcedFrom: Milliseconds = 15_000
    /// The longest wait of a handshake for the penalty of its source. With ``strangersPerSource`` connections it bounds
    /// one source to five attempts a second.
    package var maxWait: Milliseconds = 3_000
    /// The wait is at most the handshake's deadline divided by this.
    package static let waitShare: Milliseconds = 3
    package var maxPenalty: Milliseconds = 600_000
    package var penaltyTable = 65_536
    /// How long a refused login is remembered for its source, from its last attempt on.
    package var refusalMemory: Milliseconds = 600_000
    package var refusalTable = 4_096

    package init() {}
}

/// What a stranger did wrong, and what that costs its source.
package enum Offence: Sendable {
    case badLogin, sameBadLogin, noLogin, protocolError, tooSlow

    package var milliseconds: Milliseconds {
        switch self {
        case .badLogin: 5_000
        // Ten attempts a second just keep pace with it. A few services of one office that restart make fewer.
        case .sameBadLogin: 100
        case .noLogin: 1_000
        case .protocolError, .tooSlow: 10_000
        }
    }
}

/// Decides which connections to the agent port are let in until they have logged in.
///
/// At a limit, the connection that has gone longest without progress is closed to make room. Connections that hang
/// therefore never keep an honest agent out, whose handshake is always the one that progressed last.
///
/// A penalty delays the handshakes of its source and refuses none, because an honest agent may share the address. A
/// waiting connection is not closed for another one of its source. At the total limit, waiting connections are closed
/// first.
///
/// From its LOGIN to the verdict a connection counts as a login instead. A source at its limit does not displace one of
/// its own logins, because that agent would only try again. At the total limit, the source with the most logins loses
/// its oldest one.
///
/// Penalties and bounds of one source do not hold for all: see ``Source/Standing``.
package struct Admission: Sendable {
    package enum Verdict: Equatable, Sendable {
        case admit
        /// Let it in and close that other one.
        case admitInsteadOf(UInt64)
        /// All connections that its source may have are waiting for its penalty.
        case refuse
    }

    package enum LoginVerdict: Equatable, Sendable {
        case judge
        /// Judge it and refuse that other one, which may try again.
        case judgeInsteadOf(UInt64)
        /// It may try again later.
        case refuse
    }

    private struct Stranger {
        let source: Source
        var progressedAt: Milliseconds
        /// The end of its handshake's wait for the penalty of its source. The end of the wait counts as progress.
        var waitsUntil: Milliseconds = 0

        func isWaiting(_ now: Milliseconds) -> Bool { self.waitsUntil > now }

        /// The connection with the lowest rank is closed first: waiting ones before others.
        func rank(_ id: UInt64, _ now: Milliseconds) -> (Int, Milliseconds, UInt64) {
            self.isWaiting(now) ? (0, self.progressedAt, id) : (1, max(self.progressedAt, self.waitsUntil), id)
        }
    }

    private struct RefusedLogin: Hashable {
        let login: UInt64
        let source: Source
    }

    private struct Count {
        var strangers = 0
        var logins = 0
    }

    private let limits: AdmissionLimits
    private var strangers: [UInt64: Stranger] = [:]
    /// Connections whose login is being judged.
    private var logins: [UInt64: Source] = [:]
    private var perSource: [Source: Count] = [:]
    /// When the penalty of a source is served.
    private var penalties: [Source: Milliseconds] = [:]
    /// Until when each is remembered.
    private var refusedLogins: [RefusedLogin: Milliseconds] = [:]

    package init(limits: AdmissionLimits = AdmissionLimits()) {
        self.limits = limits
    }

    /// Connections that are not logged in, those that are being judged included.
    package var strangerCount: Int { self.strangers.count + self.logins.count }

    /// A connection came.
    package mutating func connected(_ id: UInt64, from source: Source, now: Milliseconds) -> Verdict {
        var evicted: UInt64?
        if self.isFull(of: source) {
            evicted = self.slowest(now) { $0.source == source && !$0.isWaiting(now) }
            guard evicted != nil else { return .refuse }
        } else if self.strangers.count >= self.limits.strangers {
            evicted = self.slowest(now) { _ in true }
        }
        if let evicted { self.left(evicted) }
        self.strangers[id] = Stranger(source: source, progressedAt: now)
        self.perSource[source, default: Count()].strangers += 1
        return evicted.map { .admitInsteadOf($0) } ?? .admit
    }

    /// Whether the source has as many connections as it may have before the login.
    package func isFull(of source: Source) -> Bool {
        source.standing != .trusted && self.perSource[source]?.strangers ?? 0 >= self.limits.strangersPerSource
    }

    private func slowest(_ now: Milliseconds, _ belongs: (Stranger) -> Bool) -> UInt64? {
        self.strangers.filter { belongs($0.value) }.min { $0.value.rank($0.key, now) < $1.value.rank($1.key, now) }?.key
    }

    /// The first message of a handshake is complete.
    ///
    /// - Returns: milliseconds that the handshake waits for the penalty of its source; 0 for none.
    package mutating func greeted(_ id: UInt64, now: Milliseconds) -> Milliseconds {
        guard let source = self.strangers[id]?.source else { return 0 }
        let penalty = self.penalty(of: source, now: now)
        let wait = penalty >= self.limits.enforcedFrom ? min(penalty, self.limits.maxWait) : 0
        self.strangers[id]?.progressedAt = now
        self.strangers[id]?.waitsUntil = now + wait
        return wait
    }

    /// A handshake moved on.
    package mutating func progressed(_ id: UInt64, now: Milliseconds) {
        self.strangers[id]?.progressedAt = now
    }

    /// A LOGIN came. With `refuse` the connection stays a stranger until `left`.
    package mutating func loginArrived(_ id: UInt64) -> LoginVerdict {
        guard let source = self.strangers[id]?.source else { return .judge }
        let own = self.perSource[source]?.logins ?? 0
        guard source.standing == .trusted || own < self.limits.loginsPerSource else { return .refuse }
        var evicted: UInt64?
        if self.logins.count >= self.limits.logins {
            guard let largest = self.perSource.max(by: { $0.value.logins < $1.value.logins }),
                largest.value.logins > own + 1,
                let oldest = self.logins.filter({ $0.value == largest.key }).keys.min()
            else { return .refuse }
            evicted = oldest
        }
        if let evicted { self.left(evicted) }
        self.left(id)
        self.logins[id] = source
        self.perSource[source, default: Count()].logins += 1
        return evicted.map { .judgeInsteadOf($0) } ?? .judge
    }

    /// A connection has logged in or is gone; calling it twice does no harm.
    package mutating func left(_ id: UInt64) {
        if let stranger = self.strangers.removeValue(forKey: id) {
            self.count(stranger.source) { $0.strangers -= 1 }
        } else if let source = self.logins.removeValue(forKey: id) {
            self.count(source) { $0.logins -= 1 }
        }
    }

    private mutating func count(_ source: Source, _ change: (inout Count) -> Void) {
        guard var count = self.perSource[source] else { return }
        change(&count)
        self.perSource[source] = count.strangers > 0 || count.logins > 0 ? count : nil
    }

    /// The authenticator refused a login.
    ///
    /// A login that the same source has tried before costs little: it comes from a program that keeps restarting with a
    /// wrong token, not from guessing, and must not lock out other agents behind the same address.
    ///
    /// - Parameter login: a hash of what the agent showed of itself.
    /// - Returns: as ``penalize(_:_:now:)``.
    package mutating func loginRefused(_ login: UInt64, from source: Source, now: Milliseconds) -> Bool {
        guard source.standing == .stranger else { return false }
        let refused = RefusedLogin(login: login, source: source)
        let isKnown = self.refusedLogins[refused].map { $0 > now } ?? false
        if !isKnown, self.refusedLogins.count >= self.limits.refusalTable {
            self.refusedLogins = self.refusedLogins.filter { $0.value > now }
            if self.refusedLogins.count >= self.limits.refusalTable,
                let first = self.refusedLogins.min(by: { $0.value < $1.value })
            {
                self.refusedLogins[first.key] = nil
            }
        }
        self.refusedLogins[refused] = now + self.limits.refusalMemory
        return self.penalize(source, isKnown ? .sameBadLogin : .badLogin, now: now)
    }

    /// A stranger misbehaved.
    ///
    /// - Returns: whether the penalty of another source was dropped because the table is full; the caller counts that.
    package mutating func penalize(_ source: Source, _ offence: Offence, now: Milliseconds) -> Bool {
        guard source.standing == .stranger else { return false }
        var hasForgotten = false
        if self.penalties.count >= self.limits.penaltyTable, self.penalties[source] == nil {
            self.penalties = self.penalties.filter { $0.value > now }
            // Still full of active penalties: forget the one that ends first.
            if self.penalties.count >= self.limits.penaltyTable,
                let first = self.penalties.min(by: { $0.value < $1.value })
            {
                self.penalties[first.key] = nil
                hasForgotten = true
            }
        }
        let served = max(self.penalties[source] ?? 0, now)
        self.penalties[source] = min(served + offence.milliseconds, now + self.limits.maxPenalty)
        return hasForgotten
    }

    /// Sources that have a penalty to serve, also one that is too short to be enforced.
    package func penaltyCount(now: Milliseconds) -> Int { self.penalties.values.count { $0 > now } }

    /// Penalties that are enforced, with what is left of each.
    package func penalties(now: Milliseconds) -> [(Source, Milliseconds)] {
        self.penalties.filter { $0.value >= now + self.limits.enforcedFrom }.map { ($0.key, $0.value - now) }
    }

    /// Forgets the penalties of the sources for which it holds; false when there are none.
    package mutating func forgive(_ holds: (Source) -> Bool) -> Bool {
        let count = self.penalties.count
        self.penalties = self.penalties.filter { !holds($0.key) }
        return self.penalties.count < count
    }

    /// Milliseconds that a source still has to serve.
    package func penalty(of source: Source, now: Milliseconds) -> Milliseconds {
        guard let until = self.penalties[source], until > now else { return 0 }
        return until - now
    }
}
