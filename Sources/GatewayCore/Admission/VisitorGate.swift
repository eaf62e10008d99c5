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
    /// Visitors of one agent for each free place: one alone takes 8 of 9 places, two take 16 of 17.
    package static let shareOfFree = 8

    package init() {}
}

/// Decides which visitors are let in.
///
/// The bounds per source do not hold for loopback: there sits the proxy through which everybody comes. Nor do they for
/// a proxy that is trusted to say who comes: its connections are unnamed until it has, with room of their own, and then those of their source.
///
/// Agents share the room: one that is not alone may have ``VisitorLimits/shareOfFree`` times as many visitors as there
/// are free places, so that some are free for the others however many come to one (dynamic thresholds, as in the shared
/// memory of switches: Choudhury and Hahne, IEEE/ACM Transactions on Networking 6(2), 1998).
package struct VisitorGate: Sendable {
    /// Why a visitor is not let in.
    package enum Refusal: CaseIterable, Sendable, CustomStringConvertible {
        case tooMany, tooManyOfAgent, tooManyFromSource, tooFastFromSource, tooManyUnnamed

        package var description: String {
            switch self {
            case .tooMany: "the gateway has reached its limit of visitors"
            case .tooManyOfAgent: "its agent has reached its share of the visitors"
            case .tooManyFromSource: "its address has too many connections"
            case .tooFastFromSource: "its address connects too often"
            case .tooManyUnnamed: "too many connections are waiting for their PROXY header"
            }
        }
    }

    /// All visitors, and how many of them are being disconnected to make room. The latter no longer count.
    private struct Count {
        var all = 0
        var leaving = 0
        var staying: Int { self.all - self.leaving }

        mutating func left() {
            self.all -= 1
            self.leaving = max(0, self.leaving - 1)
        }
    }

    private struct Record {
        var count = 0
        var bucket: TokenBucket
        var lastArrival: Milliseconds
    }

    package let limits: VisitorLimits
    private var records: [Source: Record] = [:]
    /// Visitors in total and by the agent that they visit.
    private var total = Count()
    private var agents: [String: Count] = [:]
    private var unnamed = 0

    package init(limits: VisitorLimits = VisitorLimits()) {
        self.limits = limits
    }

    /// Those included of whom it is not known who they are.
    package var count: Int { self.total.all + self.unnamed }

    package var isFull: Bool { self.free <= 0 }

    private var free: Int { self.limits.total - self.total.staying }

    private func count(of agent: String) -> Int { self.agents[agent]?.staying ?? 0 }

    /// Whether an agent may have one more visitor.
    package func hasShare(_ agent: String) -> Bool {
        self.count(of: agent) < VisitorLimits.shareOfFree * self.free
    }

    /// Whether an agent has so few visitors that others should make room for one more.
    package func isModest(_ agent: String) -> Bool { self.count(of: agent) < VisitorLimits.shareOfFree }

    /// One of the agent's visitors is being sent away.
    package mutating func willLeave(_ agent: String) {
        self.total.leaving += 1
        self.agents[agent]?.leaving += 1
    }

    /// Why a visitor of this source is refused now; nil takes one token from the source's rate.
    package mutating func refusal(of source: Source, now: Milliseconds) -> Refusal? {
        guard source.standing == .stranger else { return nil }
        var record =
            self.records[source]
            ?? Record(
                bucket: TokenBucket(burst: self.limits.burst, perSecond: self.limits.ratePerSecond, now: now),
                lastArrival: now)
        record.lastArrival = now
        defer { self.records[source] = record }
        guard record.count < self.limits.perSource else { return .tooManyFromSource }
        return record.bucket.take(now: now) ? nil : .tooFastFromSource
    }

    /// A visitor is let in after its source and the room for it were checked; `left` follows.
    package mutating func entered(from source: Source, to agent: String) {
        self.total.all += 1
        self.agents[agent, default: Count()].all += 1
        if source.standing == .stranger { self.records[source]?.count += 1 }
    }

    /// A connection of a trusted proxy comes; without a refusal `unnamedLeft` follows, at the latest when the proxy has
    /// said whose it is: from then on it counts as any other.
    package mutating func enterUnnamed() -> Refusal? {
        guard self.unnamed < self.limits.unnamed else { return .tooManyUnnamed }
        self.unnamed += 1
        return nil
    }

    /// A connection is gone, or it is known whose it is.
    package mutating func unnamedLeft() { self.unnamed -= 1 }

    /// A visitor that was let in is gone.
    package mutating func left(_ source: Source, to agent: String) {
        if source.standing == .stranger { self.records[source]?.count -= 1 }
        guard var count = self.agents[agent] else { return }
        let before = count.leaving
        count.left()
        self.total.all -= 1
        self.total.leaving -= before - count.leaving
        self.agents[agent] = count.all > 0 ? count : nil
    }

    /// Forgets sources without visitors and with a full bucket; call it about once a second.
    package mutating func forgetIdle(now: Milliseconds) {
        let refill = Milliseconds(self.limits.burst) * 1_000 / Milliseconds(max(self.limits.ratePerSecond, 1))
        self.records = self.records.filter { $0.value.count > 0 || now - $0.value.lastArrival < refill }
    }
}
