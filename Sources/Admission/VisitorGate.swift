package import Timing

/// The bounds on visitors.
package struct VisitorLimits: Sendable {
    package var total = 8_192
    package var perSource = 256
    package var ratePerSecond = 100
    /// That may come at once, as a browser opens its connections together.
    package var burst = 100 * VisitorLimits.burstSeconds
    /// Seconds of the rate that may come at once.
    package static let burstSeconds = 2
    /// Connections of proxies that have not yet said whose they are. A proxy says so at once, so there are few.
    package var unnamed = 1_024

    package init() {}
}

/// Decides which visitors are let in.
///
/// The bounds per source do not hold for loopback: there sits the proxy through which everybody comes. Nor do they for
/// a proxy that is trusted to say who comes: its connections are unnamed until it has, and then those of their source.
package struct VisitorGate: Sendable {
    package enum Verdict: Equatable, Sendable {
        case admit
        case tooMany
        case tooManyFromSource
        case tooFastFromSource
        case tooManyUnnamed
    }

    private struct Record {
        var count = 0
        var bucket: TokenBucket
        var lastArrival: Milliseconds
    }

    package let limits: VisitorLimits
    /// Visitors that are being sent away to make room: they count no more.
    private var leaving = 0
    private var records: [Source: Record] = [:]
    /// Named and unnamed.
    package private(set) var count = 0
    private var unnamed = 0

    package init(limits: VisitorLimits = VisitorLimits()) {
        self.limits = limits
    }

    package var isFull: Bool { self.count - self.leaving >= self.limits.total }

    /// One of those who are here is being sent away.
    package mutating func willLeave() { self.leaving += 1 }

    package mutating func arrived(from source: Source, now: Milliseconds) -> Verdict {
        guard !self.isFull else { return .tooMany }
        if !source.isLoopback {
            var record =
                self.records[source]
                ?? Record(
                    bucket: TokenBucket(burst: self.limits.burst, perSecond: self.limits.ratePerSecond, now: now),
                    lastArrival: now)
            record.lastArrival = now
            defer { self.records[source] = record }
            guard record.count < self.limits.perSource else { return .tooManyFromSource }
            guard record.bucket.take(now: now) else { return .tooFastFromSource }
            record.count += 1
        }
        self.count += 1
        return .admit
    }

    /// A connection of a trusted proxy; if it is admitted, `unnamedLeft` or `named` follows.
    package mutating func arrivedUnnamed() -> Verdict {
        guard !self.isFull else { return .tooMany }
        guard self.unnamed < self.limits.unnamed else { return .tooManyUnnamed }
        self.unnamed += 1
        self.count += 1
        return .admit
    }

    /// The proxy has said whose connection it is: from now on it counts as any other, or no more.
    package mutating func named(_ source: Source, now: Milliseconds) -> Verdict {
        self.unnamedLeft()
        return self.arrived(from: source, now: now)
    }

    /// A connection is gone before it was known whose it is.
    package mutating func unnamedLeft() {
        self.unnamed -= 1
        self.count -= 1
    }

    /// A visitor that was admitted is gone.
    package mutating func left(_ source: Source) {
        self.count -= 1
        self.leaving = max(0, self.leaving - 1)
        guard !source.isLoopback else { return }
        self.records[source]?.count -= 1
    }

    /// Forgets sources that have nobody here and a full bucket; call it about once a second.
    package mutating func forgetIdle(now: Milliseconds) {
        let refill = Milliseconds(self.limits.burst) * 1_000 / Milliseconds(max(self.limits.ratePerSecond, 1))
        self.records = self.records.filter { $0.value.count > 0 || now - $0.value.lastArrival < refill }
    }
}
