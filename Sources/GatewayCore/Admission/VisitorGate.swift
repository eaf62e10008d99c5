package import Timing

/// Limits on visitors.
package struct VisitorLimits: Sendable {
    package var total = 8_192
    package var perSource = 256
    package var ratePerSecond = 100
    /// Visitors that one source may open at once, as a browser does.
    package var burst = 100 * VisitorLimits.burstSeconds
    /// `burst`, in seconds of the rate.
    package static let burstSeconds = 2
    /// Connections from trusted proxies that await their PROXY header. Proxies send it at once, so there are few.
    package var unnamed = 1_024
    /// The most visitors of one agent per free place: one busy agent gets 8 of 9 places, two together get 16 of 17.
    package static let shareOfFree = 8

    package init() {}
}

/// Decides which visitors are admitted.
///
/// The limits per source do not apply to loopback, where a local proxy connects for all visitors. A connection from a
/// trusted proxy is *unnamed* until its PROXY header arrives: it has a limit of its own, and then those of the source
/// in the header.
///
/// Agents share the total. With several agents, one agent may have at most ``VisitorLimits/shareOfFree`` times as many
/// visitors as there are free places. Some places therefore stay free for the others, however busy one agent is
/// (dynamic thresholds, as in shared-memory switches: Choudhury and Hahne, IEEE/ACM Transactions on Networking 6(2),
/// 1998).
package struct VisitorGate: Sendable {
    /// Why a visitor is refused.
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

    /// Visitors, and how many of them are being disconnected to make room. The latter no longer count.
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
    /// Visitors in total and by agent.
    private var total = Count()
    private var agents: [String: Count] = [:]
    private var unnamed = 0

    package init(limits: VisitorLimits = VisitorLimits()) {
        self.limits = limits
    }

    /// Visitors, including unnamed connections.
    package var count: Int { self.total.all + self.unnamed }

    package var isFull: Bool { self.free <= 0 }

    private var free: Int { self.limits.total - self.total.staying }

    private func count(of agent: String) -> Int { self.agents[agent]?.staying ?? 0 }

    /// Whether an agent may have one more visitor.
    package func hasShare(_ agent: String) -> Bool {
        self.count(of: agent) < VisitorLimits.shareOfFree * self.free
    }

    /// Whether an agent has so few visitors that a stalled stream of another agent may be ended for one more.
    package func isModest(_ agent: String) -> Bool { self.count(of: agent) < VisitorLimits.shareOfFree }

    /// One of the agent's visitors is being disconnected to make room.
    package mutating func willLeave(_ agent: String) {
        self.total.leaving += 1
        self.agents[agent]?.leaving += 1
    }

    /// Why a visitor from this source is refused; nil if it may enter, which takes a token from the source's rate.
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

    /// A visitor was admitted, after the checks of its source and of the room. The caller reports its end by `left`.
    package mutating func entered(from source: Source, to agent: String) {
        self.total.all += 1
        self.agents[agent, default: Count()].all += 1
        if source.standing == .stranger { self.records[source]?.count += 1 }
    }

    /// A trusted proxy connected. Unless refused, the caller reports by `unnamedLeft` that the connection closed or
    /// that its PROXY header arrived; from then on it counts like any other visitor.
    package mutating func enterUnnamed() -> Refusal? {
        guard self.unnamed < self.limits.unnamed else { return .tooManyUnnamed }
        self.unnamed += 1
        return nil
    }

    /// An unnamed connection closed, or its PROXY header arrived.
    package mutating func unnamedLeft() { self.unnamed -= 1 }

    /// An admitted visitor disconnected.
    package mutating func left(_ source: Source, to agent: String) {
        if source.standing == .stranger { self.records[source]?.count -= 1 }
        guard var count = self.agents[agent] else { return }
        let before = count.leaving
        count.left()
        self.total.all -= 1
        self.total.leaving -= before - count.leaving
        self.agents[agent] = count.all > 0 ? count : nil
    }

    /// Drops sources with no visitors and a full bucket. Call about once a second.
    package mutating func forgetIdle(now: Milliseconds) {
        let refill = Milliseconds(self.limits.burst) * 1_000 / Milliseconds(max(self.limits.ratePerSecond, 1))
        self.records = self.records.filter { $0.value.count > 0 || now - $0.value.lastArrival < refill }
    }
}
