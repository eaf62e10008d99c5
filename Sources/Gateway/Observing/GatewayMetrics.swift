internal import GatewayCore
internal import Metrics
internal import Modules
internal import Reactor
internal import Relay
internal import Tunnel
internal import Wire

/// The fate of a connection to the agent port before anything is read from it.
enum ArrivalResult: String, CaseIterable {
    case admitted
    /// The source is at its limit, and all its connections are delayed by its penalty.
    case sourceFull = "source-full"
    /// The operator has banned its network.
    case banned
    /// All links that the gateway may have are in use.
    case noRoom = "no-room"
    /// The peer closed it before it was accepted.
    case gone
}

/// The kinds of requests to authenticators.
enum Question: String, CaseIterable { case login, name }

/// The hub's counters. The hub reports each event with one call. Current state is not counted but read when metrics are
/// requested (``GatewayFigures``).
///
/// No label value here comes from a peer: codes that the protocol does not define count as `other`.
final class GatewayMetrics {
    /// Counts logins and names that were refused with any other code.
    private static let other = "other"

    /// When the process started, in seconds since 1970. Read once, because Prometheus takes a change for a restart.
    let processStart = ProcessFigures.processStart()
    private(set) var arrivals = CounterTable<ArrivalResult>()
    private(set) var logins = CounterTable(
        ["accepted"]
            + [ErrorCode.loginRefused, .notLoopback, .methodNotSupported, .tooManyLinks, .overloaded, .drain].map(
                \.description)
            + ["abandoned", GatewayMetrics.other])
    private(set) var linksClosed = CounterTable(Ending.ofLinks)
    /// Links that lost their connection and can be resumed, and those that were.
    private(set) var linksDetached = CounterTable(Ending.ofLinks)
    private(set) var linksResumed = Counter()
    private(set) var strangersClosed = CounterTable(Ending.ofLinks)
    /// Limits reached in the hub; those of workers are in their figures.
    private(set) var limitHits = CounterTable<LimitHit>()
    private(set) var namesRegistered = Counter()
    private(set) var namesRefused = CounterTable(
        ErrorCode.all.filter { (80...95).contains($0.rawValue) || $0 == .overloaded || $0 == .drain }
            .map(\.description) + [GatewayMetrics.other])
    private(set) var answers = Dictionary(
        uniqueKeysWithValues: Question.allCases.map {
            ($0, Histogram(bounds: [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10]))
        })
    /// How late the one-second timer fires, in seconds: visitors' bytes may have waited that long for the loop.
    private(set) var loopLag = Histogram(bounds: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5])
    /// In milliseconds, on the loop's clock.
    private var nextTick: UInt64?

    // MARK: - Agents

    func arrived(_ result: ArrivalResult) { self.arrivals.add(result) }

    func loginAccepted() { self.logins.add("accepted", or: Self.other) }

    func loginRefused(_ code: ErrorCode) { self.logins.add(code.description, or: Self.other) }

    /// The connection ended before the authenticator answered.
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

    func linkDetached(_ end: LinkEnd) {
        let ending = Ending(end)
        self.linksDetached.add(ending, or: ending.other)
    }

    func linkResumed() { self.linksResumed.add() }

    func nameRegistered() { self.namesRegistered.add() }

    func nameRefused(_ code: ErrorCode) { self.namesRefused.add(code.description, or: Self.other) }

    /// Wraps the completion of a request that is sent now, to time the answer.
    func timing<Answer>(_ question: Question, _ completion: @escaping (Answer) -> Void) -> (Answer) -> Void {
        let began = EventLoop.nanoseconds
        return { [weak self] answer in
            self?.answers[question]?.observe(nanoseconds: EventLoop.nanoseconds &- began)
            completion(answer)
        }
    }

    /// A limit without a counter of its own was reached.
    func hit(_ limit: LimitHit, _ count: Int = 1) { self.limitHits.add(limit, count: count) }

    // MARK: - The loop

    /// The timer with this period (ms) has fired.
    ///
    /// - Parameter now: the loop's time (ms), from which libuv sets the timer again.
    func ticked(now: UInt64, period: UInt64) {
        if let due = self.nextTick {
            let nanoseconds = EventLoop.nanoseconds
            self.loopLag.observe(nanoseconds: nanoseconds > due * 1_000_000 ? nanoseconds - due * 1_000_000 : 0)
        }
        self.nextTick = now + period
    }
}
