package import Timing

/// Where a connection comes from.
package struct Source: Hashable, Sendable {
    /// An IPv4 address, or the /64 of an IPv6 address.
    package let key: UInt64
    package let isLoopback: Bool

    package init(key: UInt64, isLoopback: Bool) {
        self.key = key
        self.isLoopback = isLoopback
    }
}

/// The bounds on strangers at the agent port.
package struct AdmissionLimits: Sendable {
    /// Connections that have not logged in.
    package var strangers = 256
    /// The same from one source.
    package var strangersPerSource = 16
    /// Penalties below this are not enforced, so that one slip costs nothing.
    package var enforcedFrom: Milliseconds = 15_000
    package var mostPenalty: Milliseconds = 600_000
    package var penaltyTable = 65_536

    package init() {}
}

/// What a stranger did wrong, and what that costs its source.
package enum Offence: Sendable {
    case badLogin, noLogin, protocolError, tooSlow

    package var milliseconds: Milliseconds {
        switch self {
        case .badLogin: 5_000
        case .noLogin: 1_000
        case .protocolError, .tooSlow: 10_000
        }
    }
}

/// Decides which connections to the agent port are let in until they have logged in.
///
/// When there is no room, the connection that has gone longest without progress is closed to make some: strangers who
/// hang never keep an honest agent out, as an honest handshake is always the one that progressed last.
///
/// Loopback sources collect no penalties: behind one loopback address there may be many users and proxies.
package struct Admission: Sendable {
    package enum Verdict: Equatable, Sendable {
        case admit
        /// Let it in and close that other one.
        case admitInsteadOf(UInt64)
        /// Its source has to wait that many milliseconds.
        case refuse(Milliseconds)
    }

    private struct Stranger {
        let source: Source
        var progressedAt: Milliseconds
    }

    private let limits: AdmissionLimits
    private var strangers: [UInt64: Stranger] = [:]
    private var perSource: [Source: Int] = [:]
    /// When the penalty of a source is served.
    private var penalties: [Source: Milliseconds] = [:]

    package init(limits: AdmissionLimits = AdmissionLimits()) {
        self.limits = limits
    }

    package var strangerCount: Int { self.strangers.count }

    /// A connection came.
    package mutating func connected(_ id: UInt64, from source: Source, now: Milliseconds) -> Verdict {
        let penalty = self.penalty(of: source, now: now)
        if penalty >= self.limits.enforcedFrom { return .refuse(penalty) }
        var evicted: UInt64?
        if self.isFull(of: source) {
            evicted = self.slowest { $0.source == source }
        } else if self.strangers.count >= self.limits.strangers {
            evicted = self.slowest { _ in true }
        }
        if let evicted { self.left(evicted) }
        self.strangers[id] = Stranger(source: source, progressedAt: now)
        self.perSource[source, default: 0] += 1
        return evicted.map { .admitInsteadOf($0) } ?? .admit
    }

    /// Whether the source has as many connections as it may have before the login.
    package func isFull(of source: Source) -> Bool {
        self.perSource[source, default: 0] >= self.limits.strangersPerSource
    }

    private func slowest(_ belongs: (Stranger) -> Bool) -> UInt64? {
        self.strangers.filter { belongs($0.value) }
            .min { ($0.value.progressedAt, $0.key) < ($1.value.progressedAt, $1.key) }?.key
    }

    /// A handshake moved on.
    package mutating func progressed(_ id: UInt64, now: Milliseconds) {
        self.strangers[id]?.progressedAt = now
    }

    /// A connection has logged in or is gone; calling it twice does no harm.
    package mutating func left(_ id: UInt64) {
        guard let stranger = self.strangers.removeValue(forKey: id) else { return }
        let count = self.perSource[stranger.source, default: 1] - 1
        self.perSource[stranger.source] = count > 0 ? count : nil
    }

    /// A stranger misbehaved. True when the penalty of another source was forgotten to make room for this one.
    @discardableResult
    package mutating func penalize(_ source: Source, _ offence: Offence, now: Milliseconds) -> Bool {
        guard !source.isLoopback else { return false }
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
        self.penalties[source] = min(served + offence.milliseconds, now + self.limits.mostPenalty)
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
