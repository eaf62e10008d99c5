internal import GatewayCore
internal import Metrics
internal import Modules
internal import Reactor
package import Relay
internal import Tunnel
internal import Wire

/// What became of a connection to the agent port before anything was read from it.
enum ArrivalResult: String, CaseIterable {
    case admitted
    /// All connections that its source may have are waiting for its penalty.
    case sourceFull = "source-full"
    /// The operator keeps it out.
    case banned
    case noRoom = "no-room"
    case gone
}

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

/// How a stream or a link ended: by whom, and why.
package struct Ending: Hashable, Sendable {
    package enum Side: String, Sendable {
        case agent, gateway, visitor
        /// The connection between agent and gateway.
        case network
        /// Both sides of a stream, in order.
        case both
    }

    package let side: Side
    /// A slug of ``ErrorCode`` or one of ours.
    package let reason: String

    private static let other = "other"

    package init(_ side: Side, _ reason: String) {
        self.side = side
        self.reason = reason
    }

    private init(_ side: Side, _ code: ErrorCode) { self.init(side, code.description) }

    package init(_ end: StreamEnd) {
        switch end {
        case .finished: self.init(.both, "finished")
        case .failed: self.init(.visitor, "socket-error")
        case .resetByPeer(let code): self.init(.agent, code)
        case .abandoned(let code): self.init(.gateway, code)
        }
    }

    package init(_ end: LinkEnd) {
        switch end {
        case .closedByPeer: self.init(.agent, "closed")
        case .failed: self.init(.network, "socket-error")
        case .security: self.init(.gateway, "security")
        case .otherProtocol: self.init(.gateway, "other-protocol")
        case .violation(let violation): self.init(.gateway, violation.code)
        case .ended(let code, _): self.init(.gateway, code)
        case .goAway(let goAway): self.init(.agent, goAway.code)
        }
    }

    /// What is counted instead of a code that a peer has made up.
    package var other: Ending { Ending(self.side, Self.other) }

    package static let ofStreams: [Ending] = {
        let codes = ErrorCode.all.filter { (1...31).contains($0.rawValue) }
        return [Ending(.both, "finished"), Ending(.visitor, "socket-error")]
            + (codes.map { Ending(.agent, $0) } + [Ending(.agent, Self.other)])
            + ((codes + [.dead, .revoked]).map { Ending(.gateway, $0) } + [Ending(.gateway, Self.other)])
    }()

    package static let ofLinks: [Ending] = {
        let codes = ErrorCode.all.filter { $0 == .none || (32...63).contains($0.rawValue) }
        let own =
            codes + [
                .loginRefused, .notLoopback, .methodNotSupported, .denied, .overloaded, .internalError, .stalled,
            ]
        return [Ending(.network, "socket-error"), Ending(.agent, "closed")]
            + (codes.map { Ending(.agent, $0) } + [Ending(.agent, Self.other)])
            + ["security", "other-protocol"].map { Ending(.gateway, $0) }
            + (own.map { Ending(.gateway, $0) } + [Ending(.gateway, Self.other)])
    }()
}

/// What authenticators are asked.
enum Question: String, CaseIterable { case login, name }

/// Everything that a gateway counts of itself. The rest of the gateway tells it what happens, in a line each; what can
/// be looked at is not counted but looked at when somebody asks (``GatewayFigures``).
///
/// No label's value comes from a peer: codes that are not of the protocol are counted as `other`.
final class GatewayMetrics {
    /// A login or a name that was refused for a reason that is no code of the protocol.
    private static let other = "other"

    let relay = RelayMeter()
    /// When the process began, in seconds since 1970: always the same, as a change would be taken for a restart.
    let processStart = ProcessFigures.processStart()
    private(set) var arrivals = CounterTable<ArrivalResult>()
    private(set) var logins = CounterTable(
        ["accepted"]
            + [ErrorCode.loginRefused, .notLoopback, .methodNotSupported, .tooManyLinks, .overloaded, .drain].map(
                \.description)
            + ["abandoned", GatewayMetrics.other])
    private(set) var linksClosed = CounterTable(Ending.ofLinks)
    private(set) var strangersClosed = CounterTable(Ending.ofLinks)
    private(set) var visitors = CounterTable<VisitorResult>()
    private(set) var streamsClosed = CounterTable(Ending.ofStreams)
    private(set) var namesRegistered = Counter()
    private(set) var namesRefused = CounterTable(
        ErrorCode.all.filter { (80...95).contains($0.rawValue) || $0 == .overloaded || $0 == .drain }
            .map(\.description) + [GatewayMetrics.other])
    private(set) var answers = Dictionary(
        uniqueKeysWithValues: Question.allCases.map {
            ($0, Histogram(bounds: [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10]))
        })
    /// How late the timer of each second fires: as long a visitor's bytes may have waited for the loop.
    private(set) var loopLag = Histogram(bounds: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5])
    /// On the clock of the loop.
    private var nextTick: UInt64?

    // MARK: - Agents

    func arrived(_ result: ArrivalResult) { self.arrivals.add(result) }

    func loginAccepted() { self.logins.add("accepted", or: Self.other) }

    func loginRefused(_ code: ErrorCode) { self.logins.add(code.description, or: Self.other) }

    /// The connection ended before the authenticator had answered.
    func loginAbandoned() { self.logins.add("abandoned", or: Self.other) }

    /// - Parameter wasUp: whether it had logged in.
    func linkClosed(_ end: LinkEnd, wasUp: Bool) {
        let ending = Ending(end)
        if wasUp {
            self.linksClosed.add(ending, or: ending.other)
        } else {
            self.strangersClosed.add(ending, or: ending.other)
        }
    }

    func nameRegistered() { self.namesRegistered.add() }

    func nameRefused(_ code: ErrorCode) { self.namesRefused.add(code.description, or: Self.other) }

    /// The completion of a question that is asked now: times the answer.
    func timing<Answer>(_ question: Question, _ completion: @escaping (Answer) -> Void) -> (Answer) -> Void {
        let began = EventLoop.nanoseconds
        return { [weak self] answer in
            self?.answers[question]?.observe(nanoseconds: EventLoop.nanoseconds &- began)
            completion(answer)
        }
    }

    // MARK: - Visitors

    func visitor(_ result: VisitorResult) { self.visitors.add(result) }

    /// A limit without a counter of its own was reached.
    func hit(_ limit: LimitHit, _ count: Int = 1) { self.relay.hit(limit, count) }

    func streamClosed(_ end: StreamEnd) {
        let ending = Ending(end)
        self.streamsClosed.add(ending, or: ending.other)
    }

    // MARK: - The loop

    /// The timer that fires every `period` milliseconds has fired.
    ///
    /// - Parameter now: the loop's, by which libuv sets the timer anew.
    func ticked(now: UInt64, period: UInt64) {
        if let due = self.nextTick {
            let nanoseconds = EventLoop.nanoseconds
            self.loopLag.observe(nanoseconds: nanoseconds > due * 1_000_000 ? nanoseconds - due * 1_000_000 : 0)
        }
        self.nextTick = now + period
    }
}
