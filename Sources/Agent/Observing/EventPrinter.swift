import FoundationEssentials
internal import Journal
internal import Reactor
internal import Settings
internal import Timing
internal import Wire

/// An event on standard output, for a user or a program.
enum AgentEvent {
    /// - Parameter pin: nil with version 1, which has no pins.
    case connected(gateway: String, pin: String?)
    /// - Parameters:
    ///   - address: nil if the gateway did not send a valid one. Version 1 sends none.
    ///   - port: nil if the name has no public port, and with version 1.
    ///   - problem: why the address is missing.
    case registered(name: String, address: String?, port: UInt16?, backend: String, problem: String?)
    case stream(name: String, visitor: String)
    case missing(name: String, code: String, message: String)
    /// The connection is gone; names and streams wait for the next one.
    case interrupted(reason: String)
    /// The names are reachable again, and the streams continue.
    case resumed(seconds: Double)
    /// The link is over: its names and streams are gone.
    case lost(reason: String)
    case retrying(seconds: Double)
    case refused(code: String, message: String, exit: Int32)
    /// Events before this one were omitted because there were too many.
    case omitted(count: Int)

    /// Whether visitors cause the event.
    fileprivate var isOfVisitors: Bool {
        if case .stream = self { true } else { false }
    }

    /// Whether the program itself sets the pace of the event, which slows down with each failure. These events have no
    /// rate limit, because programs follow the state of the link by them.
    fileprivate var isPaced: Bool {
        switch self {
        case .connected, .interrupted, .resumed, .lost, .retrying, .refused: true
        case .registered, .stream, .missing, .omitted: false
        }
    }
}

/// Prints events: a line for each registered name, a view for people, or one JSON object per line for programs.
///
/// A slow reader does not hold up traffic, because lines are queued here. The gateway and visitors can cause any number
/// of events, so both kinds have a rate limit. `omitted` reports how many events are missing.
final class EventPrinter {
    enum Form {
        case lines
        case view(TerminalView)
        case json
    }

    /// Most lines that are queued for the reader. Further lines are dropped.
    private var maxWaiting: Int { 1_000 + 4 * self.names }
    /// How many names the agent wants.
    private var names: Int

    private let form: Form
    private let writer: PatientWriter
    private var waiting: [String] = []
    private var answers: LineLimit
    private var streams: LineLimit

    /// Events that were left out and are not yet reported by `omitted`.
    private var dropped = 0

    /// - Parameter names: how many names the agent wants. The first answer about each is never left out.
    init(form: Form, names: Int, now: Milliseconds, writer: PatientWriter) {
        self.form = form
        self.writer = writer
        self.names = names
        // The same rates as for the log lines about these events.
        let rates = PeerLog.answers(names: names)
        self.answers = LineLimit(source: rates.source, total: rates.total, now: now)
        // Each visitor also costs a connection to the backend.
        let rate = LineLimit.Rate(burst: 1_000, perSecond: 100)
        self.streams = LineLimit(source: rate, total: rate, now: now)
    }

    /// Changes the names that the agent wants.
    func change(to exposes: [AgentSettings.Expose], now: Milliseconds) {
        self.names = exposes.count
        if case .view(let view) = self.form {
            self.append(view.change(to: exposes.map { ($0.name.text, $0.backend.description) }))
        }
        let rates = PeerLog.answers(names: self.names)
        self.answers.change(source: rates.source, total: rates.total, now: now)
    }

    func print(_ event: AgentEvent, now: Milliseconds) {
        guard !event.isPaced else { return self.append(event) }
        let isAllowed = event.isOfVisitors ? self.streams.take("", now: now) : self.answers.take("", now: now)
        if isAllowed { self.append(event) }
    }

    /// Goes on writing and reports omitted events. Call it about once a second.
    func tick(now: Milliseconds) {
        self.flush()
        for report in self.answers.leftOut(now: now) + self.streams.leftOut(now: now) { self.dropped += report.count }
        guard self.dropped > 0, self.waiting.count < self.maxWaiting else { return }
        let count = self.dropped
        self.dropped = 0
        self.append(.omitted(count: count))
    }

    /// Whether people want to know of a visitor: it is the first of its name.
    func awaitsVisitor(of name: String) -> Bool {
        if case .view(let view) = self.form { view.awaitsVisitor(of: name) } else { false }
    }

    /// Whether people look at a view.
    var isView: Bool { if case .view = self.form { true } else { false } }

    private func append(_ event: AgentEvent) { self.append(self.lines(for: event)) }

    private func append(_ lines: [String]) {
        guard !lines.isEmpty else { return }
        guard self.waiting.count < self.maxWaiting else {
            self.dropped += 1
            return
        }
        self.waiting += lines
        self.flush()
    }

    private func lines(for event: AgentEvent) -> [String] {
        switch self.form {
        case .lines: return Self.line(event).map { [$0] } ?? []
        case .json: return Self.json(event).map { [$0] } ?? []
        case .view(let view): return view.lines(for: event)
        }
    }

    /// Writes as many lines as the reader takes.
    func flush() {
        var written = 0
        for line in self.waiting {
            guard self.writer.write(line) else { break }
            written += 1
        }
        self.waiting.removeFirst(written)
    }

    /// Only registered names are printed. People read the rest in the log.
    private static func line(_ event: AgentEvent) -> String? {
        guard case .registered(let name, let address, _, let backend, _) = event else { return nil }
        return "\(name): \(address ?? "registered") -> \(backend)"
    }

    /// The keys are part of the interface and are described in docs/scripting.md.
    private struct Line: Encodable {
        var event: String
        var gateway: String?
        var pin: String?
        var name: String?
        var address: String?
        var port: UInt16?
        var backend: String?
        var visitor: String?
        var reason: String?
        var seconds: Double?
        var code: String?
        var message: String?
        var exit: Int32?
        var count: Int?
    }

    private static func json(_ event: AgentEvent) -> String? {
        let line =
            switch event {
            case .connected(let gateway, let pin): Line(event: "connected", gateway: gateway, pin: pin)
            case .registered(let name, let address, let port, let backend, let problem):
                Line(
                    event: "registered", name: name, address: address, port: port, backend: backend, message: problem)
            case .stream(let name, let visitor): Line(event: "stream", name: name, visitor: visitor)
            case .missing(let name, let code, let message):
                Line(event: "missing", name: name, code: code, message: message)
            case .interrupted(let reason): Line(event: "interrupted", reason: reason)
            case .resumed(let seconds): Line(event: "resumed", seconds: seconds)
            case .lost(let reason): Line(event: "lost", reason: reason)
            case .retrying(let seconds): Line(event: "retrying", seconds: seconds)
            case .refused(let code, let message, let exit):
                Line(event: "refused", code: code, message: message, exit: exit)
            case .omitted(let count): Line(event: "omitted", count: count)
            }
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        guard let data = try? encoder.encode(line) else { return nil }
        return String(decoding: data, as: UTF8.self)
    }
}
