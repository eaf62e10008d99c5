internal import Control
internal import GatewayCore
internal import Journal
internal import Logging
internal import Modules
internal import Reactor
internal import Relay
internal import Secure
internal import Settings
internal import Tunnel
internal import Wire

/// One agent's link, seen from the gateway: login, names, visitors.
final class AgentSession {
    enum State {
        case stranger
        /// The authenticator is at work.
        case authenticating(any Cancellable)
        /// It is told, and the connection ends.
        case refused
        case up(LoginGrant)
        case closed
    }

    /// How long an agent may take to move its names to its next link.
    private static let moveMilliseconds: UInt64 = 30_000

    let id: UInt64
    /// The source that limits and penalties count.
    private(set) var source: Source
    let link: LinkSession
    /// The agent's address: of the connection, or of a trusted proxy's header.
    private(set) var peer: SocketAddress
    /// The trusted proxy between it and us.
    private(set) var proxy: SocketAddress?
    /// Whether the first message of its handshake has arrived.
    var hasGreeted = false
    /// Whether it has the rights of the gateway's own machine.
    private(set) var isFromLoopback: Bool
    let probes: BackendProbes
    let visits: LinkVisits
    unowned let gateway: GatewayServer
    var state = State.stranger {
        didSet { self.chargeQuestions() }
    }
    private(set) var certificatePin: String?
    var loginArrivedAt: UInt64 = 0
    var refusalTimer: LoopTimer?
    /// When the agent was asked to make another link, as this one's stream ids are used up.
    private var wornOutAt: UInt64?
    var exposures: [Exposure] = []
    private var firstToResume = 0
    /// To the authenticator, about names.
    var questionCount = 0 {
        didSet { self.chargeQuestions() }
    }
    /// Questions that wait for the authenticator count as the bytes of streams do.
    private var questionShare: BudgetShare
    /// A question with what a module keeps of it, at least: names, addresses and closures; and a login, with its token.
    private static let questionBytes = 1_024
    private static let loginBytes = 4_096

    init(id: UInt64, link: LinkSession, peer: SocketAddress, source: Source, gateway: GatewayServer) {
        self.id = id
        self.link = link
        self.probes = BackendProbes(link: link)
        self.visits = LinkVisits(link: link, gateway: gateway)
        self.peer = peer
        self.isFromLoopback = peer.isLoopback
        self.gateway = gateway
        self.source = source
        self.questionShare = BudgetShare(gateway.budget)
        link.delegate = self
        link.transport.gatekeeper = self
    }

    /// A PROXY header shows that the agent is not on this machine.
    func loseLoopbackRights() { self.isFromLoopback = false }

    /// A trusted proxy's header has the agent's address.
    func isBehindProxy(at address: SocketAddress, source: Source) {
        (self.proxy, self.peer, self.source) = (self.peer, address, source)
    }

    private func chargeQuestions() {
        var count = self.questionCount * Self.questionBytes
        if case .authenticating = self.state { count += Self.loginBytes }
        self.questionShare.set(count)
    }

    var identity: AgentIdentity? {
        if case .up(let grant) = self.state { AgentIdentity(id: grant.identity) } else { nil }
    }

    /// The key under which registrations and withdrawals are counted: the identity, or the source of an agent that can
    /// create identities at will and so evade limits of one identity.
    func payer(of grant: LoginGrant) -> String {
        grant.identityIsFree && self.source.standing == .stranger ? self.source.text : grant.identity
    }

    /// What its login is good for; nil before it, and after the end.
    var grant: LoginGrant? {
        if case .up(let grant) = self.state { grant } else { nil }
    }

    var limits: AgentLimits { self.grant?.limits ?? AgentLimits() }

    /// From now on these hold instead of those of the login.
    func setLimits(_ limits: AgentLimits) {
        guard case .up(let grant) = self.state else { return }
        self.state = .up(grant.with(limits))
        self.allow()
    }

    /// Has the link keep to what the agent may have, which can be more than others.
    func allow() {
        let usual = self.gateway.settings.limits
        self.link.allow(
            streams: self.limits.streams ?? usual.streamsPerLink, names: self.limits.names ?? usual.namesPerLink)
    }

    /// How the log calls this agent.
    var label: String { self.identity.map { "agent \($0) at \(self.peer)" } ?? "\(self.peer)" }

    // MARK: - Visitors

    /// Looks for room for a visitor.
    func room() -> LinkRoom { self.visits.room(most: self.limits.streams) }

    /// Opens a stream for an admitted visitor, or refuses the visitor.
    ///
    /// - Parameter first: bytes that were read already.
    func letIn(_ visitor: Visitor, _ stream: SocketStream, first: UnsafeRawBufferPointer?, at exposure: Exposure) {
        let edge = self.visits.letIn(visitor, stream, first: first, at: exposure, most: self.limits.streams)
        if let edge { self.gateway.control?.tell(StreamNews(.opened, self.report(of: edge))) }
    }

    /// Resumes the exposures, each time beginning with another one, so that they share what the link can take.
    private func roomAppeared() {
        guard !self.exposures.isEmpty else { return }
        self.firstToResume = (self.firstToResume + 1) % self.exposures.count
        for exposure in self.exposures[self.firstToResume...] + self.exposures[..<self.firstToResume] {
            exposure.resume()
        }
    }

    // MARK: - What the operator asks for

    func report(of edge: Edge) -> StreamReport {
        StreamReport(
            name: self.name(of: edge), agent: self.visits[edge.key]?.agent.id ?? self.identity?.id ?? "", link: self.id,
            visitor: edge.visitor.family == 0 ? nil : edge.visitor.description,
            seconds: Double(self.link.loop.now - edge.openedAt) / 1_000,
            bytesToBackend: edge.bytesFromSocket, bytesToVisitor: edge.bytesToSocket)
    }

    /// A probe is in no list of visits.
    private func name(of edge: Edge) -> String {
        let name = self.visits[edge.key]?.name ?? self.exposures.first { $0.number == edge.exposure }?.name
        return name?.text ?? "a withdrawn name"
    }

    /// Ends the link; the agent may come back.
    func kick() {
        self.gateway.names.dropNames(of: self.id)
        self.link.end(.drain, retryAfterSeconds: 1, text: "the gateway's operator ended the link")
    }

    // MARK: - The end

    /// Finishes what runs and takes nothing new.
    func drain() {
        guard case .up = self.state, self.link.streamCount > 0 else {
            self.link.end(.drain, retryAfterSeconds: 1, text: "the gateway stops")
            return
        }
        self.link.drain(retryAfterSeconds: 1, text: "the gateway stops when the streams are done")
        self.gateway.names.linkIsDraining(self.id)
        self.gateway.names.dropNames(of: self.id)
    }

    /// Looks at the deadlines; the gateway calls it once a second.
    func tick() {
        self.link.tick()
        self.probes.tick()
        for exposure in self.exposures { exposure.tick() }
        if self.link.isOpen, self.link.phase == .up, self.link.isWornOut {
            // The agent makes its next link, which takes the names over.
            self.link.drain(text: "the stream ids of this link are used up")
            self.gateway.names.linkIsDraining(self.id)
            // Visitors wait in the backlog until the names have moved.
            for exposure in self.exposures { exposure.pause() }
            self.wornOutAt = self.link.loop.now
        }
        if let since = self.wornOutAt, self.link.streamCount == 0,
            self.exposures.isEmpty || self.link.loop.now - since >= Self.moveMilliseconds
        {
            self.link.end(.drain, text: "the stream ids of this link are used up")
        }
        self.roomAppeared()
    }
}

extension AgentSession: LinkSessionDelegate {
    func link(_ link: LinkSession, didSecure peer: ChannelPeer) -> PeerVerdict {
        self.gateway.admissionProgressed(self)
        self.certificatePin = peer.pin?.description
        return .proceed(nil)
    }

    func link(_ link: LinkSession, did event: LinkEvent) {
        switch event {
        case .login(let credentials): self.loginArrived(credentials)
        case .register(let register): self.gateway.names.register(self.id, register)
        case .unregister(let number): self.gateway.names.unregister(self.id, number: number)
        case .ready: self.roomAppeared()
        case .accepted(let key): if !self.probes.wasAccepted(key) { self.roomAppeared() }
        case .goAway(let goAway):
            self.log(
                .debug, .detail, "\(self.label) says goodbye: \(goAway.code)", self.about([.code: goAway.code]))
            self.gateway.names.linkIsDraining(self.id)
            self.gateway.names.dropNames(of: self.id)
        case .needMore, .welcomed, .registered, .opened, .data, .reset, .violation: break
        }
    }

    func link(_ link: LinkSession, streamEnded edge: Edge, _ end: StreamEnd) {
        // Not by the visitor's address, which nobody knows behind a unix socket.
        guard let visit = self.visits[edge.key] else { return self.probeEnded(edge) }
        self.gateway.metrics.streamClosed(end)
        self.gateway.control?.tell(StreamNews(.closed, self.report(of: edge), reason: end.slug))
        self.visits.ended(edge.key)
        self.streamEnded(edge, end, visit)
        self.roomAppeared()
    }

    private func probeEnded(_ edge: Edge) {
        switch self.probes.ended(edge) {
        case .forgotten: break
        case .answered(let exposure): self.gateway.names.probed(exposure, over: self.id)
        case .silent(let exposure):
            self.log(
                .info, .detail, "\(self.label): '\(exposure.name)' waits for its backend, which does not answer",
                self.about([.name: exposure.name]))
        }
    }

    func linkIsEnding(_ link: LinkSession) { self.gateway.names.linkIsEnding(self.id) }

    func linkDidEnd(_ link: LinkSession, _ end: LinkEnd) {
        self.refusalTimer?.close()
        self.refusalTimer = nil
        let label = self.label
        let identity = self.identity
        if case .authenticating(let operation) = self.state {
            self.gateway.metrics.loginAbandoned()
            operation.cancel()
        }
        self.gateway.names.linkEnded(self.id)
        self.state = .closed
        self.gateway.metrics.linkClosed(end, wasUp: identity != nil)
        if let identity {
            self.gateway.peerLog.write(
                .info, .milestone, of: .agent(identity.id), "link of \(label) ended: \(end)",
                self.about([.agent: identity]))
        } else {
            self.gateway.strangerLeft(self, end)
        }
        self.gateway.sessionEnded(self)
    }

    func linkDidEmpty(_ link: LinkSession) { self.gateway.sessionEmptied(self) }
}
