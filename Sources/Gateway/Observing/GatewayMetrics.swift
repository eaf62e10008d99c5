internal import GatewayCore
internal import Metrics
internal import Modules
internal import Reactor
internal import Relay
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

/// What authenticators are asked.
enum Question: String, CaseIterable { case login, name }

/// What the hub counts. The rest of the hub tells it what happens, in a line each; what can
/// be looked at is not counted but looked at when somebody asks (``GatewayFigures``).
///
/// No label's value comes from a peer: codes that are not of the protocol are counted as `other`.
final class GatewayMetrics {
    /// A login or a name that was refused for a reason that is no code of the protocol.
    private static let other = "other"

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
    /// Limits that the hub has met; those of workers are in their figures.
    private(set) var limitHits = CounterTable<LimitHit>()
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

    /// A limit without a counter of its own was reached.
    func hit(_ limit: LimitHit, _ count: Int = 1) { self.limitHits.add(limit, count: count) }

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
