internal import Control
internal import GatewayCore
internal import Journal
internal import Logging
internal import ProxyProtocol
internal import Reactor
internal import Relay
internal import Secure
internal import Timing
internal import Tunnel
internal import Wire

/// A worker's view of one agent's link: its streams, and the exposures attached to it.
final class WorkerLink {
    /// How long an agent may take to move its names to its next link.
    private static let moveMilliseconds: Milliseconds = 30_000
    private static let wornOutText = "this link has no stream ids left"

    let id: LinkID
    let link: LinkSession
    private(set) var label: AgentLabel
    let probes: BackendProbes
    let visits: LinkVisits
    private let isVersion1: Bool
    unowned let worker: Worker
    private var exposures: [Exposure] = []
    private var firstToResume = 0
    /// Nil before login.
    private var allowance: LinkAllowance?
    /// When the agent was asked to make another link because the stream ids of this one are used up.
    private var wornOutAt: Milliseconds?
    /// When the agent logged in again instead of resuming this link.
    private var retiredAt: Milliseconds?

    init(_ new: NewLink, _ link: LinkSession, worker: Worker) {
        self.id = new.id
        self.link = link
        self.label = AgentLabel(peer: new.peer)
        self.isVersion1 = new.isVersion1
        self.worker = worker
        self.probes = BackendProbes(link: link)
        self.visits = LinkVisits(link: link, worker: worker)
        link.delegate = self
        link.transport.gatekeeper = self
    }

    // MARK: - Orders

    func welcome(_ identity: AgentIdentity, _ allowance: LinkAllowance, _ welcome: Welcome) {
        guard self.link.isOpen else { return }
        self.label.identity = identity
        self.allow(allowance)
        self.link.acceptLogin(welcome)
    }

    /// Applies the agent's limits, which may be above the defaults.
    func allow(_ allowance: LinkAllowance) {
        self.allowance = allowance
        self.link.allow(streams: allowance.streams, names: allowance.names)
    }

    func answer(_ answer: Registered) {
        if self.link.isOpen { self.link.answer(answer) }
    }

    /// Routes the name's visitors to this link.
    func attach(_ exposure: Exposure, number: UInt16) {
        exposure.attach(to: self, number: number)
        self.exposures.append(exposure)
    }

    /// The name is gone or has moved to another link.
    func detach(_ exposure: Exposure) {
        self.exposures.removeAll { $0 === exposure }
        self.probes.forget(exposure)
    }

    /// Accepts nothing new. Ends the link at once if it has no streams; otherwise `tick` ends it when they have
    /// finished.
    func drain() {
        guard self.label.identity != nil, self.link.streamCount > 0 else {
            return self.link.end(.drain, retryAfterSeconds: 1, text: "the gateway is stopping")
        }
        self.link.drain(retryAfterSeconds: 1, text: "the gateway stops when its streams have finished")
    }

    /// The agent has logged in again instead of resuming this link. Its names wait to be registered again.
    func retire() {
        self.worker.forget(self)
        self.retiredAt = self.link.loop.now
        self.link.abortStreams(.dead) { _ in true }
        for exposure in self.exposures { exposure.pause() }
    }

    /// The link continues on a connection of its agent at another address.
    func resumed(at label: AgentLabel) {
        (self.label.peer, self.label.proxy) = (label.peer, label.proxy)
        self.roomAppeared()
    }

    // MARK: - Visitors

    /// Looks for room for a visitor.
    func room() -> LinkRoom { self.visits.room(atMost: self.allowance?.agentStreams) }

    /// Opens a stream for an admitted visitor, or resets the visitor.
    ///
    /// - Parameter first: bytes already read from the visitor; valid during the call.
    func letIn(_ visitor: Visitor, _ stream: SocketStream, first: UnsafeRawBufferPointer?, at exposure: Exposure) {
        let maxStreams = self.allowance?.agentStreams
        if let edge = self.visits.letIn(visitor, stream, first: first, at: exposure, atMost: maxStreams) {
            self.worker.tell(StreamNews(.opened, self.report(of: edge)))
        }
    }

    /// Resumes the exposures, starting with a different one each time, so that they share the link's room.
    private func roomAppeared() {
        guard !self.exposures.isEmpty, self.retiredAt == nil else { return }
        self.firstToResume = (self.firstToResume + 1) % self.exposures.count
        for exposure in self.exposures[self.firstToResume...] + self.exposures[..<self.firstToResume] {
            exposure.resume()
        }
    }

    // MARK: - Operator commands

    func report(of edge: Edge) -> StreamReport {
        StreamReport(
            name: self.name(of: edge), agent: self.visits[edge.key]?.agent.id ?? self.label.identity?.id ?? "",
            link: self.id, visitor: edge.visitor.family == 0 ? nil : edge.visitor.description,
            seconds: Double(self.link.loop.now - edge.openedAt) / 1_000,
            bytesToBackend: edge.bytesFromSocket, bytesToVisitor: edge.bytesToSocket)
    }

    /// Probes are not in `visits`, so they take the name from their exposure.
    private func name(of edge: Edge) -> String {
        let name = self.visits[edge.key]?.name ?? self.exposures.first { $0.number == edge.exposure }?.name
        return name?.text ?? "a withdrawn name"
    }

    var streamsByName: [ExposureID: Int] {
        let counts = self.link.openEdges.reduce(into: [UInt16: Int]()) { $0[$1.exposure, default: 0] += 1 }
        return Dictionary(uniqueKeysWithValues: self.exposures.map { ($0.id, counts[$0.number] ?? 0) })
    }

    // MARK: - Time

    /// Checks deadlines. Call about once a second.
    func tick(isDraining: Bool) {
        self.link.tick()
        self.probes.tick()
        for exposure in self.exposures { exposure.tick() }
        if let since = self.retiredAt {
            if self.exposures.isEmpty || self.link.loop.now - since >= Self.moveMilliseconds {
                self.link.close(.ended(.replaced, "the agent has logged in again"))
            }
            return
        }
        if isDraining, self.link.streamCount == 0 { self.drain() }
        if self.link.isOpen, self.link.phase == .up, self.link.isWornOut {
            // The agent makes another link, which takes over the names.
            self.link.drain(text: Self.wornOutText)
            // The agent resumes only its newest link.
            self.link.forbidResuming()
            self.worker.tell(.wornOut(self.id))
            // Until then, visitors wait in the backlog.
            for exposure in self.exposures { exposure.pause() }
            self.wornOutAt = self.link.loop.now
        }
        if let since = self.wornOutAt, self.link.streamCount == 0,
            self.exposures.isEmpty || self.link.loop.now - since >= Self.moveMilliseconds
        {
            self.link.end(.drain, text: Self.wornOutText)
        }
        self.roomAppeared()
    }
}

extension WorkerLink: LinkGatekeeper {
    /// A PROXY header from an untrusted program on this machine can only take rights away, because any local user could
    /// claim any address.
    func transport(_ transport: LinkTransport, didReceive header: ProxyHeader) -> IntroductionVerdict {
        let isTrusted = self.worker.settings.sources.isProxy(self.label.peer)
        guard isTrusted || transport.isLocal else {
            let text = "PROXY header from an address that is not in accept-proxy-protocol"
            return .refuse(.security(SecurityError(text)))
        }
        guard case .proxied(let wire, _) = header, let address = SocketAddress(wire) else { return .proceed }
        if !address.isLoopback { self.worker.tell(.isRemote(self.id)) }
        guard isTrusted else { return .proceed }
        (self.label.proxy, self.label.peer) = (self.label.peer, address)
        self.worker.tell(.introduced(self.id, address))
        return .wait
    }

    func transport(_ transport: LinkTransport, leaves socket: SocketStream, _ alert: TLSAlert) {
        self.worker.turnAway(socket, alert, isVersion1: self.isVersion1)
    }

    func transportDidGreet(_ transport: LinkTransport) { self.worker.tell(.greeted(self.id)) }
}

extension WorkerLink: LinkSessionDelegate {
    func link(_ link: LinkSession, didSecure peer: ChannelPeer) -> PeerVerdict {
        self.worker.tell(.secured(self.id, pin: peer.pin?.description))
        return .proceed(nil)
    }

    func link(_ link: LinkSession, did event: LinkEvent) {
        switch event {
        case .login(let credentials): self.worker.tell(.login(self.id, credentials))
        case .resume(let resume): self.worker.resume(resume, on: self)
        case .register(let register): self.worker.tell(.register(self.id, register))
        case .unregister(let number): self.worker.tell(.unregister(self.id, number: number))
        case .ready: self.roomAppeared()
        case .accepted(let key): if !self.probes.wasAccepted(key) { self.roomAppeared() }
        case .goAway(let goAway):
            link.forbidResuming()
            self.worker.tell(.saidGoodbye(self.id, goAway.code))
        case .needMore, .greeted, .resumed, .welcomed, .registered, .opened, .data, .reset, .violation: break
        }
    }

    func link(_ link: LinkSession, streamEnded edge: Edge, _ end: StreamEnd) {
        // Tell probes from visitors by the key. Visitors of a unix socket have no address either.
        guard let visit = self.visits[edge.key] else { return self.probeEnded(edge) }
        self.worker.metrics.streamClosed(end)
        self.worker.tell(StreamNews(.closed, self.report(of: edge), reason: end.slug))
        self.visits.ended(edge.key)
        self.log(edge, end, visit)
        self.roomAppeared()
    }

    private func probeEnded(_ edge: Edge) {
        switch self.probes.ended(edge) {
        case .forgotten: break
        case .answered(let exposure): self.worker.tell(.probed(exposure.id, self.id))
        case .silent(let exposure):
            self.worker.log.write(
                .info, .detail, by: self.label,
                "\(self.label): '\(exposure.name)' waits for its backend, which accepts no connections",
                self.label.about([.name: exposure.name]))
        }
    }

    func linkDidDetach(_ link: LinkSession, _ end: LinkEnd) { self.worker.tell(.detached(self.id, end)) }

    func linkIsEnding(_ link: LinkSession) { self.worker.tell(.ending(self.id)) }

    func linkDidEnd(_ link: LinkSession, _ end: LinkEnd) { self.worker.ended(self, end) }

    func linkDidEmpty(_ link: LinkSession) { self.worker.emptied(self) }
}
