internal import GatewayCore
internal import Metrics
internal import Relay
internal import Wire

/// What became of a visitor's connection.
enum VisitorResult: Hashable, CaseIterable {
    /// It became a stream.
    case admitted
    case refused(VisitorGate.Refusal)
    /// The operator keeps it out.
    case banned
    case headerLate, headerBad
    /// The agent has as many streams as its entry in the agents file allows, or as a link may have.
    case agentLimit, agentFull
    /// The name was withdrawn while the visitor waited.
    case withdrawn
    /// It was gone, or its name was, before it could be dealt with.
    case gone

    static let allCases =
        [.admitted] + VisitorGate.Refusal.allCases.map { Self.refused($0) }
        + [.banned, .headerLate, .headerBad, .agentLimit, .agentFull, .withdrawn, .gone]

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

/// What a worker has counted, and is at this moment.
struct WorkerFigures: Sendable {
    var relay = RelayFigures()
    var visitorResults = CounterTable<VisitorResult>()
    var streamsClosed = CounterTable(Ending.ofStreams)
    var visitors = 0
    /// Bytes that peers may make the gateway hold, or do: see ``ByteBudget``.
    var granted = (used: 0, limit: 0)
    /// Of the names that are held now, in no order.
    var traffic: [(name: Name, traffic: Traffic)] = []
}

/// Everything that a worker counts.
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

    /// What was counted.
    var figures: WorkerFigures {
        WorkerFigures(
            relay: self.relay.figures, visitorResults: self.visitorResults, streamsClosed: self.streamsClosed)
    }
}
