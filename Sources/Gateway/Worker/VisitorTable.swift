internal import GatewayCore
internal import Reactor

/// Makes room for visitors of a ``VisitorTable``; implemented by the worker.
protocol VisitorRoom: AnyObject {
    /// Whether no other agent has names.
    func isOnlyAgent(_ agent: AgentIdentity) -> Bool
    /// Ends the longest-stalled stream, of one agent or of all. Returns the stream's agent; nil if no stream has
    /// stalled for long enough.
    func endStalledStream(of agent: AgentIdentity?) -> AgentIdentity?
}

/// Counts visitors against their limits, and knows which connections begin with a PROXY header.
final class VisitorTable {
    private let loop: EventLoop
    private let rules: SourceRules
    private let socketsAreProxied: Bool
    private var gate: VisitorGate
    weak var room: (any VisitorRoom)?

    /// - Parameter socketsAreProxied: whether connections through unix sockets begin with a PROXY header.
    init(loop: EventLoop, limits: VisitorLimits, rules: SourceRules, socketsAreProxied: Bool) {
        self.loop = loop
        self.rules = rules
        self.socketsAreProxied = socketsAreProxied
        self.gate = VisitorGate(limits: limits)
    }

    /// Whether connections from there begin with a PROXY header.
    func isProxy(_ origin: Origin) -> Bool {
        switch origin {
        case .socket: self.socketsAreProxied
        case .address(let address): self.rules.isProxy(address)
        }
    }

    /// Why a visitor is refused; if nil, it counts until `left`.
    func refusal(of source: Source, to agent: AgentIdentity) -> VisitorGate.Refusal? {
        // Checked first: a visitor that is refused because of its source must not displace another one.
        if let refusal = self.gate.refusal(of: source, now: self.loop.now) { return refusal }
        if let refusal = self.refusalForRoom(of: agent) { return refusal }
        self.gate.entered(from: source, to: agent.id)
        return nil
    }

    /// Why a proxy's connection is refused; if nil, it counts until `unnamedLeft` or `refusal(ofNamed:)`.
    func refusalOfUnnamed() -> VisitorGate.Refusal? { self.gate.enterUnnamed() }

    /// Why a visitor reported by a proxy is refused; if nil, it counts until `left`.
    func refusal(ofNamed source: Source, to agent: AgentIdentity) -> VisitorGate.Refusal? {
        self.gate.unnamedLeft()
        return self.refusal(of: source, to: agent)
    }

    /// Why there is no room for another visitor of an agent; nil if there is. Makes room by ending a stalled stream of
    /// the same agent or, if the agent has few visitors, of any agent.
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

    /// Whether there are so many visitors that each should get little memory.
    var isCrowded: Bool { self.gate.count * 4 > self.gate.limits.total }

    func left(_ source: Source, to agent: AgentIdentity) { self.gate.left(source, to: agent.id) }

    func unnamedLeft() { self.gate.unnamedLeft() }

    /// Call about once a second.
    func tick() { self.gate.forgetIdle(now: self.loop.now) }
}
