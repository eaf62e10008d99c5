package import Timing

/// The address that limits and penalties count.
package struct Source: Hashable, Sendable {
    /// How far the source is trusted. Behind a local or a trusted address there may be many agents, users and proxies.
    package enum Standing: Hashable, Sendable {
        /// All limits and penalties apply.
        case stranger
        /// An address of this machine: exempt from penalties and from visitor limits per source.
        case ownMachine
        /// Trusted by the operator: also exempt from limits on connections and logins per source.
        case trusted
    }

    /// Identifies an IPv4 address or an IPv6 /64.
    package let key: UInt64
    package let standing: Standing

    package init(key: UInt64, standing: Standing = .stranger) {
        self.key = key
        self.standing = standing
    }
}

/// Limits on connections to the agent port before login.
package struct AdmissionLimits: Sendable {
    /// Unauthenticated connections.
    package var strangers = 256
    /// Unauthenticated connections per source.
    package var strangersPerSource = 16
    /// Unauthenticated connections from sources whose agents have lost their connection, beside the others, so that a
    /// flood of strangers does not keep them out.
    package var returning = 256
    /// Returning connections of a source beyond the number of its agents that are away.
    package static let spareReturning = 2
    /// Logins waiting for the authenticator. It may be slow, and each login holds a connection with its buffers.
    package var logins = 1_024
    /// Waiting logins per source: enough for all agents of one office to reconnect at once. The rest have to retry.
    package var loginsPerSource = 64
    /// Penalties below this are not enforced, so a single mistake costs nothing.
    package var enforcedFrom: Milliseconds = 15_000
    /// The longest time that a penalty delays a handshake. With ``strangersPerSource`` connections, one source gets
    /// about five attempts per second.
    package var maxWait: Milliseconds = 3_000
    /// The delay is at most the handshake deadline divided by this.
    package static let waitShare: Milliseconds = 3
    /// The longest penalty that a source can accumulate.
    package var maxPenalty: Milliseconds = 600_000
    /// Sources with a penalty.
    package var penaltyTable = 65_536
    /// How long a refused login is remembered for its source, counted from its last attempt.
    package var refusalMemory: Milliseconds = 600_000
    /// Refused logins to remember.
    package var refusalTable = 4_096

    package init() {}
}

/// A failure before login, and the penalty that it adds to its source.
package enum Offence: Sendable {
    case badLogin, sameBadLogin, noLogin, protocolError, tooSlow

    /// The penalty.
    package var milliseconds: Milliseconds {
        switch self {
        case .badLogin: 5_000
        // At ten attempts per second it decays as fast as it grows. A few restarting services in one office make fewer.
        case .sameBadLogin: 100
        case .noLogin: 1_000
        case .protocolError, .tooSlow: 10_000
        }
    }
}

/// Decides which connections to the agent port are admitted, until they have logged in.
///
/// At a limit, the connection that has gone longest without progress is closed. Idle connections therefore cannot keep
/// out an honest agent: its handshake is always the one that progressed last.
///
/// A penalty delays the handshakes of its source but never refuses one, because an honest agent may share the address.
/// A delayed connection is not closed to admit another one of its source. At the total limit, delayed connections are
/// closed first.
///
/// Between LOGIN and the authenticator's verdict, a connection counts as a login instead. A source at its limit does
/// not displace its own logins, because those agents would only retry. At the total limit, the source with the most
/// logins loses its oldest one.
///
/// A source whose agents have lost their connection has places of its own for as many connections, and a few more.
///
/// Local and trusted sources are exempt from some of this: see ``Source/Standing``.
package struct Admission: Sendable {
    package enum Verdict: Equatable, Sendable {
        case admit
        /// Admit it and close this other connection.
        case admitInsteadOf(UInt64)
        /// The source is at its limit, and all its connections are delayed by its penalty.
        case refuse
    }

    package enum LoginVerdict: Equatable, Sendable {
        /// Pass the login to the authenticator.
        case judge
        /// Pass it on, and refuse this other login, which may be retried.
        case judgeInsteadOf(UInt64)
        /// Refuse it; the agent may retry later.
        case refuse
    }

    private struct Stranger {
        let source: Source
        var progressedAt: Milliseconds
        /// When the delay of its handshake ends. That counts as progress.
        var waitsUntil: Milliseconds = 0
        /// Whether it has a place beside the other connections.
        var isReturning = false

        func isWaiting(_ now: Milliseconds) -> Bool { self.waitsUntil > now }

        /// The connection with the lowest rank is closed first: delayed ones before all others.
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
        /// Connections that have places of their own, and agents for which they are kept.
        var returning = 0
        var away = 0

        var isZero: Bool { self.strangers == 0 && self.logins == 0 && self.returning == 0 && self.away == 0 }
    }

    private let limits: AdmissionLimits
    private var strangers: [UInt64: Stranger] = [:]
    /// Connections whose login is with the authenticator.
    private var logins: [UInt64: Source] = [:]
    private var perSource: [Source: Count] = [:]
    private var returningCount = 0
    /// When the penalty of each source ends.
    private var penalties: [Source: Milliseconds] = [:]
    /// When to forget each entry.
    private var refusedLogins: [RefusedLogin: Milliseconds] = [:]

    package init(limits: AdmissionLimits = AdmissionLimits()) {
        self.limits = limits
    }

    /// Connections that have not logged in, including those whose login is with the authenticator.
    package var strangerCount: Int { self.strangers.count + self.logins.count }

    /// A connection was accepted. With `admitInsteadOf`, the caller closes the other one, which no longer counts.
    package mutating func connected(_ id: UInt64, from source: Source, now: Milliseconds) -> Verdict {
        if self.mayReturn(source) {
            self.strangers[id] = Stranger(source: source, progressedAt: now, isReturning: true)
            self.perSource[source, default: Count()].returning += 1
            self.returningCount += 1
            return .admit
        }
        var evicted: UInt64?
        if self.isFull(of: source) {
            evicted = self.slowest(now) { $0.source == source && !$0.isWaiting(now) }
            guard evicted != nil else { return .refuse }
        } else if self.strangers.count - self.returningCount >= self.limits.strangers {
            evicted = self.slowest(now) { _ in true }
        }
        if let evicted { self.left(evicted) }
        self.strangers[id] = Stranger(source: source, progressedAt: now)
        self.perSource[source, default: Count()].strangers += 1
        return evicted.map { .admitInsteadOf($0) } ?? .admit
    }

    /// An agent of this source has lost its connection. Call ``isBack(_:)`` once for each call.
    package mutating func isAway(_ source: Source) { self.perSource[source, default: Count()].away += 1 }

    /// The agent has a connection again, or is not expected any more.
    package mutating func isBack(_ source: Source) { self.count(source) { $0.away -= 1 } }

    private func mayReturn(_ source: Source) -> Bool {
        guard let count = self.perSource[source], count.away > 0 else { return false }
        return count.returning < count.away + AdmissionLimits.spareReturning
            && self.returningCount < self.limits.returning
    }

    /// Whether the source has reached its limit of unauthenticated connections.
    package func isFull(of source: Source) -> Bool {
        source.standing != .trusted && self.perSource[source]?.strangers ?? 0 >= self.limits.strangersPerSource
    }

    private func slowest(_ now: Milliseconds, _ belongs: (Stranger) -> Bool) -> UInt64? {
        self.strangers.filter { !$0.value.isReturning && belongs($0.value) }.min {
            $0.value.rank($0.key, now) < $1.value.rank($1.key, now)
        }?.key
    }

    /// The first message of a handshake is complete.
    ///
    /// - Returns: how long to delay the handshake because of its source's penalty, in milliseconds; 0 for no delay.
    package mutating func greeted(_ id: UInt64, now: Milliseconds) -> Milliseconds {
        guard let source = self.strangers[id]?.source else { return 0 }
        let penalty = self.penalty(of: source, now: now)
        let wait = penalty >= self.limits.enforcedFrom ? min(penalty, self.limits.maxWait) : 0
        self.strangers[id]?.progressedAt = now
        self.strangers[id]?.waitsUntil = now + wait
        return wait
    }

    /// A handshake made progress.
    package mutating func progressed(_ id: UInt64, now: Milliseconds) {
        self.strangers[id]?.progressedAt = now
    }

    /// A LOGIN arrived. After `refuse` the connection still counts as unauthenticated until `left`.
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

    /// A connection has logged in or closed. Safe to call twice.
    package mutating func left(_ id: UInt64) {
        if let stranger = self.strangers.removeValue(forKey: id) {
            self.returningCount -= stranger.isReturning ? 1 : 0
            self.count(stranger.source) {
                if stranger.isReturning { $0.returning -= 1 } else { $0.strangers -= 1 }
            }
        } else if let source = self.logins.removeValue(forKey: id) {
            self.count(source) { $0.logins -= 1 }
        }
    }

    private mutating func count(_ source: Source, _ change: (inout Count) -> Void) {
        guard var count = self.perSource[source] else { return }
        change(&count)
        self.perSource[source] = count.isZero ? nil : count
    }

    /// The authenticator refused a login.
    ///
    /// A login that failed before from the same source adds little: it comes from a program that restarts with a wrong
    /// token, not from guessing, and must not lock out other agents behind the address.
    ///
    /// - Parameter login: a hash of the credential.
    /// - Returns: like ``penalize(_:_:now:)``.
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

    /// Adds a penalty to a source, unless the source is exempt.
    ///
    /// - Returns: whether another source's penalty was dropped because the table was full. The caller counts this.
    package mutating func penalize(_ source: Source, _ offence: Offence, now: Milliseconds) -> Bool {
        guard source.standing == .stranger else { return false }
        var hasForgotten = false
        if self.penalties.count >= self.limits.penaltyTable, self.penalties[source] == nil {
            self.penalties = self.penalties.filter { $0.value > now }
            // Still full of active penalties: drop the one that ends first.
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

    /// Sources with a penalty, even one too short to be enforced.
    package func penaltyCount(now: Milliseconds) -> Int { self.penalties.values.count { $0 > now } }

    /// Enforced penalties, with the milliseconds left of each.
    package func penalties(now: Milliseconds) -> [(Source, Milliseconds)] {
        self.penalties.filter { $0.value >= now + self.limits.enforcedFrom }.map { ($0.key, $0.value - now) }
    }

    /// Removes the penalties of matching sources; returns false if there were none.
    package mutating func forgive(_ holds: (Source) -> Bool) -> Bool {
        let count = self.penalties.count
        self.penalties = self.penalties.filter { !holds($0.key) }
        return self.penalties.count < count
    }

    /// Milliseconds left of a source's penalty; 0 if it has none.
    package func penalty(of source: Source, now: Milliseconds) -> Milliseconds {
        guard let until = self.penalties[source], until > now else { return 0 }
        return until - now
    }
}
