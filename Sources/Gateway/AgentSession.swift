internal import Admission
internal import Control
internal import Journal
internal import Logging
internal import Modules
internal import Reactor
internal import Registry
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
        case up(LoginGrant, run: UInt64)
        case closed
    }

    /// How long an agent may take to move its names to its next link.
    private static let moveMilliseconds: UInt64 = 30_000

    let id: UInt64
    let source: Source
    let connection: LinkConnection
    let peer: SocketAddress
    private let probes: BackendProbes
    unowned let gateway: GatewayServer
    var state = State.stranger {
        didSet { self.chargeQuestions() }
    }
    private(set) var certificatePin: String?
    var loginArrivedAt: UInt64 = 0
    var refusalTimer: LoopTimer?
    /// When the agent was asked to make another link, as this one's stream ids are used up.
    private var wornOutAt: UInt64?
    private(set) var exposures: [Exposure] = []
    private var firstToResume = 0
    /// Questions to the authenticator about names.
    private var questions: [UInt16: any Cancellable] = [:] {
        didSet { self.chargeQuestions() }
    }
    /// Questions that wait for the authenticator count as the bytes of streams do.
    private var questionShare: BudgetShare
    /// A question with what a module keeps of it, at least: names, addresses and closures; and a login, with its token.
    private static let questionBytes = 1_024
    private static let loginBytes = 4_096
    /// Who visits what, by stream: to give the place back, and to say so at the end.
    private var visits: [StreamKey: Visit] = [:]
    /// Streams that are being ended to make room for others of this link.
    private var leaving: Set<StreamKey> = []

    init(id: UInt64, connection: LinkConnection, peer: SocketAddress, gateway: GatewayServer) {
        self.id = id
        self.connection = connection
        self.probes = BackendProbes(connection: connection)
        self.peer = peer
        self.gateway = gateway
        self.source = Source(peer)
        self.questionShare = BudgetShare(gateway.budget)
        connection.delegate = self
    }

    private func chargeQuestions() {
        var count = self.questions.count * Self.questionBytes
        if case .authenticating = self.state { count += Self.loginBytes }
        self.questionShare.set(count)
    }

    var identity: AgentIdentity? {
        if case .up(let grant, _) = self.state { AgentIdentity(id: grant.identity) } else { nil }
    }

    /// What its login is good for; nil before it, and after the end.
    var grant: LoginGrant? {
        if case .up(let grant, _) = self.state { grant } else { nil }
    }

    private var limits: AgentLimits { self.grant?.limits ?? AgentLimits() }

    /// From now on these hold instead of those of the login.
    func setLimits(_ limits: AgentLimits) {
        guard case .up(let grant, let run) = self.state else { return }
        self.state = .up(
            LoginGrant(identity: grant.identity, credential: grant.credential, limits: limits), run: run)
    }

    var run: UInt64? {
        if case .up(_, let run) = self.state { run } else { nil }
    }

    /// How the log calls this agent.
    var label: String { self.identity.map { "agent \($0) at \(self.peer)" } ?? "\(self.peer)" }

    // MARK: - Names

    private func registerArrived(_ register: Register) {
        guard case .up(let grant, let run) = self.state else { return }
        let identity = AgentIdentity(id: grant.identity)
        guard self.questions[register.exposure] == nil,
            !self.exposures.contains(where: { $0.number == register.exposure })
        else {
            // REGISTERED has the number only, so the agent could not tell which of the two it answers.
            return self.connection.end(.protocolViolation, text: "exposure \(register.exposure) is registered already")
        }
        guard self.gateway.mayRegister(identity) else { return self.refuseHaste(of: register) }
        guard Register.Kind.known.contains(register.kind) else { return self.refuseKind(of: register) }
        guard let name = Name(register.name) else {
            self.log(
                .warning, .detail, "\(self.label): bad name '\(PeerText.escaped(register.name, most: 64))'",
                self.about([.code: ErrorCode.nameInvalid]))
            return self.refuseName(register.exposure, .nameInvalid, text: Name.rule)
        }
        let request = NameRequest(identity: identity.id, peer: self.peer, name: name, port: register.port)
        let question = self.gateway.authorize(request) { [weak self] verdict in
            self?.questions[register.exposure] = nil
            self?.authorized(verdict, name, register, identity, run)
        }
        if !question.isOver { self.questions[register.exposure] = question }
    }

    private func authorized(
        _ verdict: NameVerdict, _ name: Name, _ register: Register, _ identity: AgentIdentity, _ run: UInt64
    ) {
        guard self.connection.isOpen else { return }
        let ports: [ClosedRange<UInt16>]
        switch verdict {
        case .granted(let granted): ports = granted
        case .refused(let code, let reason):
            self.warn(.detail, "name '\(name)' refused: \(reason)", name, code)
            let text =
                switch code {
                case .portNotAllowed: "the port is not allowed"
                case .overloaded: "the name cannot be judged now"
                default: "the name is not allowed"
                }
            return self.refuseName(register.exposure, code, text: text)
        }
        if register.port != 0, !ports.isEmpty, !ports.contains(where: { $0.contains(register.port) }) {
            self.warn(
                .detail, "name '\(name)' refused: it may not have the port \(register.port)", name, .portNotAllowed)
            return self.refuseName(register.exposure, .portNotAllowed, text: "the port is not allowed")
        }
        if let most = self.limits.names, self.gateway.exposures.nameCount(of: identity, except: name) >= most {
            self.warn(.detail, "name '\(name)' refused: it has \(most) names already", name, .tooManyNames)
            return self.refuseName(register.exposure, .tooManyNames, text: "at most \(most) names are allowed")
        }
        let holder = Registry.Holder(identity: identity, link: self.id, run: run, exposure: register.exposure)
        switch self.gateway.exposures.claim(
            name, holder, port: register.port, allowed: ports, session: self, gateway: self.gateway)
        {
        case .success(let exposure):
            self.exposures.append(exposure)
            if self.gateway.probesBackends, !exposure.isPublished, self.connection.canProbe {
                self.probes.begin(exposure)
            } else {
                self.gateway.exposures.publish(exposure)
            }
        case .failure(let refusal):
            self.warn(.detail, "name '\(name)' refused: \(refusal.text)", name, refusal.code)
            self.refuseName(register.exposure, refusal.code, text: refusal.text)
        }
    }

    /// The registrars have published the exposure, or failed to.
    func published(_ exposure: Exposure, failure: String?) {
        guard self.exposures.contains(where: { $0 === exposure }) else { return }
        if let failure {
            self.refuseName(exposure.number, .registrarFailed, text: failure)
            return self.drop(exposure)
        }
        self.answer(
            exposure.number, .none, port: exposure.address?.port ?? 0, text: self.gateway.exposures.shown(exposure))
        exposure.published()
        self.gateway.metrics.nameRegistered()
    }

    /// Refuses a name as its agent has registered too many in a short time, by whatever links. It may ask again.
    private func refuseHaste(of register: Register) {
        self.log(
            .warning, .detail,
            "\(self.label): name '\(PeerText.escaped(register.name, most: 64))' refused: too many registrations in a "
                + "short time",
            self.about([.code: ErrorCode.overloaded]))
        self.refuseName(register.exposure, .overloaded, text: "too many registrations in a short time")
    }

    /// Refuses a name of a kind that this gateway does not know; a newer agent may send one.
    private func refuseKind(of register: Register) {
        let kind = register.kind.rawValue
        self.log(
            .warning, .detail, "\(self.label): a name of kind \(kind) refused: the kind is not supported",
            self.about([.code: ErrorCode.kindNotSupported]))
        self.refuseName(
            register.exposure, .kindNotSupported, text: "the gateway does not support names of kind \(kind)")
    }

    private func refuseName(_ exposure: UInt16, _ code: ErrorCode, text: String) {
        self.gateway.metrics.nameRefused(code)
        self.answer(exposure, code, text: text)
    }

    func answer(_ exposure: UInt16, _ code: ErrorCode, port: UInt16 = 0, text: String) {
        self.connection.link.answerRegister(Registered(exposure: exposure, code: code, port: port, text: text))
        self.connection.setNeedsFlush()
    }

    /// Another link of the same agent has taken the exposure over.
    func lost(_ exposure: Exposure, _ code: ErrorCode) {
        self.exposures.removeAll { $0 === exposure }
        self.probes.forget(exposure)
        guard self.connection.isOpen else { return }
        self.log(
            .info, .milestone, "\(self.label): '\(exposure.name)' went to a newer link of the same agent",
            self.about([.name: exposure.name, .code: code]))
        if self.connection.link.phase != .up {
            // The streams of this link finish, and then it is ended.
            return
        }
        if self.exposures.isEmpty {
            self.connection.end(
                code,
                text: code == .conflict
                    ? "two programs with one instance key take the name from each other"
                    : "a newer program of the same agent took over")
        } else {
            self.answer(exposure.number, code, text: "a newer link of the same agent has the name now")
        }
    }

    func drop(_ exposure: Exposure) {
        self.exposures.removeAll { $0 === exposure }
        self.probes.forget(exposure)
        self.gateway.exposures.withdraw(exposure, from: self)
    }

    // MARK: - Visitors

    /// Whether the link can take a visitor.
    enum Room { case free, soon, none }

    /// Looks for room in the link. When as many streams run as may, one that is stalled is ended for the newcomer, which
    /// has to wait until its place is free.
    func room() -> Room {
        let most = self.limits.streams ?? .max
        guard self.connection.link.streamCount >= most || !self.connection.makeRoom() else { return .free }
        guard self.leaving.isEmpty else { return .soon }
        let before = self.connection.loop.now - min(StalledStreams.leastMilliseconds, self.connection.loop.now)
        let stalled = self.connection.stalledStreams(before: before).min { $0.since < $1.since }
        guard let (key, _) = stalled else { return .none }
        self.leaving.insert(key)
        self.gateway.metrics.hit(.visitors)
        self.connection.abort(key, .stalled)
        return .soon
    }

    /// Opens a stream for a visitor that has a place in the book, and gives the place back if there is none.
    ///
    /// - Parameter first: bytes that were read already.
    func letIn(_ visitor: Visitor, _ stream: SocketStream, first: UnsafeRawBufferPointer?, at exposure: Exposure) {
        if let most = self.limits.streams, self.connection.link.streamCount >= most {
            self.gateway.visitors.left(visitor.source, to: exposure.identity)
            self.gateway.metrics.visitor(.agentLimit)
            exposure.log("\(visitor) of '\(exposure.name)' refused: the agent has \(most) streams already", visitor)
            return stream.reset()
        }
        let now = self.connection.loop.now
        let address = visitor.address.map { WireAddress($0) } ?? .none
        let local = visitor.local.map { WireAddress($0) } ?? .none
        guard self.connection.isOpen, self.connection.makeRoom(),
            let key = self.connection.link.open(exposure: exposure.number, visitor: address, local: local, now: now)
        else {
            self.gateway.visitors.left(visitor.source, to: exposure.identity)
            self.gateway.metrics.visitor(.agentFull)
            exposure.log("\(visitor) of '\(exposure.name)' refused: the agent has no room for more streams", visitor)
            return stream.reset()
        }
        self.visits[key] = Visit(visitor: visitor, name: exposure.name, agent: exposure.identity)
        self.gateway.metrics.visitor(.admitted)
        self.connection.measure(key, for: exposure.meter, arrival: visitor.arrival)
        let edge = self.connection.attach(key, exposure: exposure.number, visitor: address, socket: stream)
        if let first { edge.send(first: first) }
        self.gateway.control?.tell(StreamNews(.opened, self.report(of: edge)))
    }

    /// Visitors of an agent, by its identity, also after the end of the link.
    func visits(of agent: String) -> Int { self.visits.values.count { $0.agent.id == agent } }

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
            seconds: Double(self.connection.loop.now - edge.openedAt) / 1_000,
            bytesToBackend: edge.bytesFromSocket, bytesToVisitor: edge.bytesToSocket)
    }

    /// A probe is in no list of visits.
    private func name(of edge: Edge) -> String {
        let name = self.visits[edge.key]?.name ?? self.exposures.first { $0.number == edge.exposure }?.name
        return name?.text ?? "a withdrawn name"
    }

    /// Ends the link; the agent may come back.
    func kick() {
        let exposures = self.exposures
        for exposure in exposures { self.drop(exposure) }
        self.connection.end(.drain, retryAfterSeconds: 1, text: "the gateway's operator ended the link")
    }

    // MARK: - The end

    /// Finishes what runs and takes nothing new.
    func drain() {
        guard case .up = self.state, self.connection.link.streamCount > 0 else {
            self.connection.end(.drain, retryAfterSeconds: 1, text: "the gateway stops")
            return
        }
        self.connection.drain(retryAfterSeconds: 1, text: "the gateway stops when the streams are done")
        let exposures = self.exposures
        for exposure in exposures { self.drop(exposure) }
    }

    /// Looks at the deadlines; the gateway calls it once a second.
    func tick() {
        self.connection.tick()
        self.probes.tick()
        for exposure in self.exposures { exposure.tick() }
        if self.connection.isOpen, self.connection.link.phase == .up, self.connection.link.isWornOut {
            // The agent makes its next link, which takes the names over.
            self.connection.drain(text: "the stream ids of this link are used up")
            // Visitors wait in the backlog until the names have moved.
            for exposure in self.exposures { exposure.pause() }
            self.wornOutAt = self.connection.loop.now
        }
        if let since = self.wornOutAt, self.connection.link.streamCount == 0,
            self.exposures.isEmpty || self.connection.loop.now - since >= Self.moveMilliseconds
        {
            self.connection.end(.drain, text: "the stream ids of this link are used up")
        }
        self.roomAppeared()
    }
}

extension AgentSession: LinkConnectionDelegate {
    func link(_ connection: LinkConnection, didSecure peer: ChannelPeer) -> PeerVerdict {
        self.gateway.admissionProgressed(self)
        self.certificatePin = peer.pin?.description
        return .proceed(nil)
    }

    func link(_ connection: LinkConnection, did event: LinkEvent) {
        switch event {
        case .login(let credentials): self.loginArrived(credentials)
        case .register(let register): self.registerArrived(register)
        case .unregister(let number):
            self.questions.removeValue(forKey: number)?.cancel()
            guard let exposure = self.exposures.first(where: { $0.number == number }) else { return }
            self.drop(exposure)
        case .ready: self.roomAppeared()
        case .accepted(let key): if !self.probes.wasAccepted(key) { self.roomAppeared() }
        case .goAway(let goAway):
            self.log(
                .debug, .detail, "\(self.label) says goodbye: \(goAway.code)", self.about([.code: goAway.code]))
            let exposures = self.exposures
            for exposure in exposures { self.drop(exposure) }
        case .needMore, .welcomed, .registered, .opened, .data, .reset, .violation: break
        }
    }

    func link(_ connection: LinkConnection, streamEnded edge: Edge, _ end: StreamEnd) {
        // Not by the visitor's address, which nobody knows behind a unix socket.
        guard let visit = self.visits[edge.key] else { return self.probeEnded(edge) }
        self.gateway.metrics.streamClosed(end)
        self.gateway.control?.tell(StreamNews(.closed, self.report(of: edge), reason: end.slug))
        self.visits[edge.key] = nil
        self.leaving.remove(edge.key)
        self.gateway.visitors.left(visit.visitor.source, to: visit.agent)
        self.streamEnded(edge, end, visit)
        self.roomAppeared()
    }

    private func probeEnded(_ edge: Edge) {
        switch self.probes.ended(edge) {
        case .forgotten: break
        case .answered(let exposure): self.gateway.exposures.publish(exposure)
        case .silent(let exposure):
            self.log(
                .info, .detail, "\(self.label): '\(exposure.name)' waits for its backend, which does not answer",
                self.about([.name: exposure.name]))
        }
    }

    func linkDidEnd(_ connection: LinkConnection, _ end: LinkEnd) {
        self.refusalTimer?.close()
        self.refusalTimer = nil
        let label = self.label
        let identity = self.identity
        if case .authenticating(let operation) = self.state {
            self.gateway.metrics.loginAbandoned()
            operation.cancel()
        }
        for question in self.questions.values { question.cancel() }
        self.questions = [:]
        let exposures = self.exposures
        for exposure in exposures { self.drop(exposure) }
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

    func linkDidEmpty(_ connection: LinkConnection) { self.gateway.sessionEmptied(self) }
}
