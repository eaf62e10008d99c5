internal import GatewayCore
internal import Metrics
internal import Relay
internal import Wire

/// The fate of a visitor's connection.
enum VisitorResult: Hashable, CaseIterable {
    /// It became a stream.
    case admitted
    case refused(VisitorGate.Refusal)
    /// The operator has banned its network.
    case banned
    /// No PROXY header in time, or an invalid one.
    case headerLate, headerBad
    /// The agent is at its own limit on streams, or its link is full.
    case agentLimit, agentFull
    /// The name was withdrawn while the visitor was waiting.
    case withdrawn
    /// The visitor or the name's link was gone before a stream could be opened.
    case gone

    static let allCases =
        [.admitted] + VisitorGate.Refusal.allCases.map { Self.refused($0) }
        + [.banned, .headerLate, .headerBad, .agentLimit, .agentFull, .withdrawn, .gone]

    /// The label value in the metrics.
    var slug: String {
        switch self {
        case .admitted: "admitted"
        case .refused(.tooMany): "gateway-full"
        case .refused(.tooManyOfAgent): "agent-share"
        case .refused(.tooManyFromSource): "source-full"
        case .refused(.tooFastFromSource): "source-too-fast"
        case .refused(.tooManyUnnamed): "headers-full"
        case .banned: "banned"
        case .headerLate: "header-late"
        case .headerBad: "header-bad"
        case .agentLimit: "agent-limit"
        case .agentFull: "agent-full"
        case .withdrawn: "withdrawn"
        case .gone: "gone"
        }
    }
}

/// A worker's counters and current state.
struct WorkerFigures: Sendable {
    var relay = RelayFigures()
    var visitorResults = CounterTable<VisitorResult>()
    var streamsClosed = CounterTable(Ending.ofStreams)
    var visitors = 0
    /// The bytes charged to the process's ``ByteBudget``, and its limit.
    var granted = (used: 0, limit: 0)
    /// Traffic of the names held now, in no particular order.
    var traffic: [(name: Name, traffic: Traffic)] = []
}

/// The worker's counters.
final class WorkerMetrics {
    let relay = RelayMeter()
    private var visitorResults = CounterTable<VisitorResult>()
    private var streamsClosed = CounterTable(Ending.ofStreams)

    func visitor(_ result: VisitorResult) { self.visitorResults.add(result) }

    /// A limit without a counter of its own was reached.
    func hit(_ limit: LimitHit, _ count: Int = 1) { self.relay.hit(limit, count) }

    func streamClosed(_ end: StreamEnd) {
        let ending = Ending(end)
        self.streamsClosed.add(ending, or: ending.other)
    }

    /// The counters; the worker adds its current state.
    var figures: WorkerFigures {
        WorkerFigures(
            relay: self.relay.figures, visitorResults: self.visitorResults, streamsClosed: self.streamsClosed)
    }
}
