internal import GatewayCore
internal import Reactor

/// Makes room for visitors; the worker, for ``VisitorTable``.
protocol VisitorRoom: AnyObject {
    /// Whether no other agent has names.
    func isOnlyAgent(_ agent: AgentIdentity) -> Bool
    /// Ends the stream that has waited for its peer the longest, of one agent or of all, and returns its agent; nil
    /// when no stream has waited for long enough.
    func endStalledStream(of agent: AgentIdentity?) -> AgentIdentity?
}

/// Who visits: counts visitors against their limits, and knows which proxies may say who comes.
final class VisitorTable {
    private let loop: EventLoop
    private let rules: SourceRules
    private let socketsAreProxied: Bool
    private var gate: VisitorGate
    weak var room: (any VisitorRoom)?

    /// - Parameter socketsAreProxied: whether what comes through unix sockets begins with a PROXY header.
    init(loop: EventLoop, limits: VisitorLimits, rules: SourceRules, socketsAreProxied: Bool) {
        self.loop = loop
        self.rules = rules
        self.socketsAreProxied = socketsAreProxied
        self.gate = VisitorGate(limits: limits)
    }

    /// Whether what comes from there begins with a PROXY header.
    func isProxy(_ origin: Origin) -> Bool {
        switch origin {
        case .socket: self.socketsAreProxied
        case .address(let address): self.rules.isProxy(address)
        }
    }

    /// Why a visitor is not let in, if so; else it counts until `left`.
    func refusal(of source: Source, to agent: AgentIdentity) -> VisitorGate.Refusal? {
        // First, because a visitor that is refused for its source must not displace another one.
        if let refusal = self.gate.refusal(of: source, now: self.loop.now) { return refusal }
        if let refusal = self.refusalForRoom(of: agent) { return refusal }
        self.gate.entered(from: source, to: agent.id)
        return nil
    }

    /// Why a proxy's connection is not let in, if so; else it counts until `unnamedLeft` or `refusal(ofNamed:)`.
    func refusalOfUnnamed() -> VisitorGate.Refusal? { self.gate.enterUnnamed() }

    /// Why a visitor that a proxy has named is not let in, if so; else it counts until `left`.
    func refusal(ofNamed source: Source, to agent: AgentIdentity) -> VisitorGate.Refusal? {
        self.gate.unnamedLeft()
        return self.refusal(of: source, to: agent)
    }

    /// Why one more visitor of an agent is refused for lack of room; nil when it may come in. Room is made by ending a
    /// stalled stream of the same agent or, for an agent with few visitors, of any.
    private func refusalForRoom(of agent: AgentIdentity) -> VisitorGate.Refusal? {
        guard !self.gate.hasShare(agent.id) else { return nil }
        let isAlone = self.room?.isOnlyAgent(agent) ?? true
        if isAlone, !self.gate.isFull { return nil }
        let mayTakeOthers = isAlone || self.gate.isModest(agent.id)
        let left =
            self.room?.endStalledStream(of: agent) ?? (mayTakeOthers ? self.room?.endStalledStream(of: nil) : nil)
        guard let left else { return self.gate.isFull ? .tooMany : .tooManyOfAgent }
        self.gate.willLeave(left.id)
        return nil
    }

    var count: Int { self.gate.count }

    /// Whether so many are here that each should get little memory.
    var isCrowded: Bool { self.gate.count * 4 > self.gate.limits.total }

    func left(_ source: Source, to agent: AgentIdentity) { self.gate.left(source, to: agent.id) }

    func unnamedLeft() { self.gate.unnamedLeft() }

    /// Call it about once a second.
    func tick() { self.gate.forgetIdle(now: self.loop.now) }
}
