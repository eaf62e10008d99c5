internal import GatewayCore
internal import Journal
internal import Logging
internal import Modules
internal import Reactor
internal import Relay
internal import Settings
internal import Timing
internal import Tunnel
internal import Wire

/// Drives the ``GatewayMachine``: performs its effects and feeds the results back as events. The hub passes on the
/// events of links.
final class GatewayNames {
    private struct Question: Hashable {
        let link: LinkID
        let number: UInt16
    }

    private let loop: EventLoop
    private let metrics: GatewayMetrics
    private let log: PeerLog
    private let send: (WorkerOrder) -> Void
    private let publicURL: String?
    private let authenticator: any Authenticator
    let registrars: RegistrarSet
    let listeners: PublicListeners
    private let ports: PortStore
    private var machine: GatewayMachine
    private var names: [ExposureID: HeldName] = [:]
    /// Pending requests to the authenticator.
    /// Where the former programs of taken-over names are, until the grant, the withdrawal or the refusal.
    private var takeovers: [ExposureID: SocketAddress] = [:]
    private var questions: [Question: any Cancellable] = [:]
    private var isActing = false
    /// The sessions of agents; set right after init.
    weak var sessions: AgentSessions?

    init(
        loop: EventLoop, settings: GatewaySettings, limits: GatewayMachine.Limits, metrics: GatewayMetrics,
        log: PeerLog, authenticator: any Authenticator, registrars: RegistrarSet, listeners: PublicListeners,
        ports: PortStore, send: @escaping (WorkerOrder) -> Void
    ) {
        self.loop = loop
        self.metrics = metrics
        self.log = log
        self.send = send
        self.publicURL = settings.publicURL
        self.authenticator = authenticator
        self.registrars = registrars
        self.listeners = listeners
        self.ports = ports
        self.machine = GatewayMachine(limits, ledger: ports.load(namesPerAgent: limits.namesPerAgent))
        ports.start { [unowned self] in self.machine.ledger }
    }

    /// From now on, names can be registered.
    func start() {
        self.listeners.start()
        self.registrars.start()
    }

    /// Call about once a second.
    func tick() {
        self.ports.tick()
        self.listeners.tick()
        self.machine.tick(now: self.loop.now)
    }

    /// The gateway is stopping: from now on, listeners of withdrawn names are left to the service manager.
    func willStop() { self.machine.drain() }

    /// Saves the ports and closes everything. Withdrawals in progress get a moment to finish.
    func close() {
        self.ports.saveNow()
        self.listeners.close()
        self.registrars.close()
    }

    var nameCount: Int { self.machine.nameCount }

    /// In the order in which they were opened.
    var held: [HeldName] { self.names.values.sorted { $0.id < $1.id } }

    /// Nil when the name is gone.
    subscript(id: ExposureID) -> HeldName? { self.names[id] }

    // MARK: - Events

    /// See ``GatewayMachine/loggedIn(_:_:maxLinks:)``.
    func loggedIn(_ link: LinkID, _ login: GatewayMachine.Login, maxLinks: Int) -> Refusal? {
        let refusal = self.machine.loggedIn(link, login, maxLinks: maxLinks)
        self.act()
        return refusal
    }

    func linkIsDraining(_ link: LinkID) { self.act { $0.linkIsDraining(link) } }

    func linkDetached(_ link: LinkID) { self.machine.linkDetached(link, now: self.loop.now) }

    func linkResumed(_ link: LinkID) { self.machine.linkResumed(link) }

    func linkIsEnding(_ link: LinkID) { self.machine.linkIsEnding(link) }

    func linkEnded(_ link: LinkID) { self.act { $0.linkEnded(link) } }

    func dropNames(of link: LinkID) { self.act { $0.dropNames(of: link) } }

    func register(_ link: LinkID, _ register: Register) {
        self.act { $0.register(link, register, now: self.loop.now) }
    }

    func unregister(_ link: LinkID, number: UInt16) { self.act { $0.unregister(link, number: number) } }

    func probed(_ id: ExposureID, over link: LinkID) { self.act { $0.probed(id, over: link) } }

    func changed(_ identity: AgentIdentity, _ limits: AgentLimits) {
        self.act { $0.changed(identity, maxLinks: limits.links, maxNames: limits.names) }
    }

    /// - Parameter reason: for the agent.
    func revoked(_ link: LinkID, _ reason: String) { self.act { $0.revoked(link, reason) } }

    func confirmed(_ id: ExposureID, ports: [ClosedRange<UInt16>]) { self.act { $0.confirmed(id, ports: ports) } }

    func revoke(_ id: ExposureID, _ code: ErrorCode, reason: String) {
        self.act { $0.revoke(id, code, reason: reason) }
    }

    /// Asks the authenticator whether an agent may have a name. Without an answer within `moduleDeadline`, the verdict
    /// is `overloaded`.
    func authorize(
        _ request: NameRequest, completion: @escaping (NameVerdict) -> Void
    ) -> DeadlinedOperation<NameVerdict> {
        DeadlinedOperation(
            loop: self.loop, milliseconds: moduleDeadline,
            late: .refused(.overloaded, reason: "the authenticator timed out"),
            start: { self.authenticator.authorize(request, completion: $0) },
            completion: self.metrics.timing(.name, completion))
    }

    // MARK: - Effects

    private func act(_ event: (inout GatewayMachine) -> Void = { _ in }) {
        event(&self.machine)
        // An effect can cause the next event synchronously.
        guard !self.isActing else { return }
        self.isActing = true
        while let effect = self.machine.popEffect() { self.perform(effect) }
        self.isActing = false
    }

    private func perform(_ effect: GatewayMachine.Effect) {
        switch effect {
        case .ask(let link, let number, let name, let port): self.ask(link, number, name, port)
        case .cancelQuestion(let link, let number): self.endQuestion(link, number)?.cancel()
        case .open(let id, let request): self.open(id, request)
        case .attach(let id, let link, let number):
            self.names[id]?.link = link
            self.send(.attach(id, link, number: number))
        case .probe(let id, let link): self.send(.probe(id, link))
        case .publish(let id): self.publish(id)
        case .grant(let id, let link, let number): self.grant(id, link, number)
        case .withdraw(let id): self.withdraw(id)
        case .refuse(let link, let number, let refusal):
            self.metrics.nameRefused(refusal.code)
            self.answer(link, number, refusal.code, text: refusal.text)
        case .takeBack(let link, let number, let refusal):
            self.answer(link, number, refusal.code, text: refusal.text)
        case .takenOver(let id, let former): self.takeovers[id] = self.sessions?[former]?.label.peer
        case .lost(let link, let name, let code):
            self.write(
                link, .info, .milestone, "'\(name)' was taken over by a newer link of the same agent",
                [.name: name, .code: code])
        case .warn(let link, let warning):
            self.write(
                link, .warning, warning.isChange ? .complete : .detail, warning.text,
                [.name: warning.name, .code: warning.code])
        case .cutStreams(let link, let number): self.send(.cutStreams(link, number: number))
        case .end(let link, let refusal, let seconds):
            self.sessions?[link]?.link = .ending
            self.send(.end(link, refusal, retryAfterSeconds: seconds))
        case .close(let link):
            self.sessions?[link]?.link = .cut
            // No GOAWAY: the program knows about its newer link, and lingering would only delay the close.
            self.send(.close(link, .ended(.replaced, "the agent has a newer link")))
        case .retire(let link):
            self.sessions?[link]?.link = .ending
            self.send(.retire(link))
        case .hit(.registrations): self.metrics.hit(.registrations)
        case .hit(.registrationTable(let count)): self.metrics.hit(.registrationTable, count)
        case .hit(.withdrawals): self.metrics.hit(.withdrawals)
        case .savePorts: self.ports.changed()
        }
    }

    private func answer(_ link: LinkID, _ number: UInt16, _ code: ErrorCode, port: UInt16 = 0, text: String) {
        self.send(.answer(link, Registered(exposure: number, code: code, port: port, text: text)))
    }

    /// Logs a line about an agent; does nothing if its link is gone.
    private func write(
        _ link: LinkID, _ level: Logger.Level, _ kind: PeerLog.Kind, _ text: String,
        _ fields: KeyValuePairs<LogKey, (any CustomStringConvertible & Sendable)?>
    ) {
        guard let agent = self.sessions?[link]?.label else { return }
        self.log.write(level, kind, by: agent, "\(agent): \(text)", agent.about(fields))
    }

    private func ask(_ link: LinkID, _ number: UInt16, _ name: Name, _ port: UInt16) {
        guard let session = self.sessions?[link], let identity = session.label.identity else { return }
        let request = NameRequest(identity: identity.id, peer: session.label.peer, name: name, port: port)
        let question = self.authorize(request) { [weak self] verdict in
            guard let self else { return }
            _ = self.endQuestion(link, number)
            self.act { machine in
                switch verdict {
                case .granted(let ports):
                    machine.authorized(
                        link, number: number, ports: ports,
                        isFull: { self.registrars.isFull(for: $0, of: $1) }, now: self.loop.now)
                case .refused(let code, let reason, let told):
                    machine.refused(link, number: number, code, reason: reason, told: told)
                }
            }
        }
        guard !question.isOver else { return }
        self.questions[Question(link: link, number: number)] = question
        session.questionCount += 1
    }

    private func endQuestion(_ link: LinkID, _ number: UInt16) -> (any Cancellable)? {
        guard let question = self.questions.removeValue(forKey: Question(link: link, number: number)) else {
            return nil
        }
        self.sessions?[link]?.questionCount -= 1
        return question
    }

    private func open(_ id: ExposureID, _ request: PortRequest) {
        let link = self.machine.link(of: id)
        let result = self.listeners.open(request, isKept: { self.machine.ledger.isKept($0) }) { level, text, fields in
            if let link { self.write(link, level, .detail, text, fields) }
        }
        switch result {
        case .failure(let refusal):
            self.takeovers[id] = nil
            self.machine.notOpened(id, refusal)
        case .success(let listeners):
            self.names[id] = HeldName(
                id: id, name: request.name, identity: request.identity, payer: request.payer, listeners: listeners,
                since: self.loop.now)
            self.send(
                .open(
                    OpenedName(id: id, name: request.name, identity: request.identity, sockets: listeners.all)))
            self.machine.opened(id, port: listeners.address?.port ?? 0)
        }
    }

    private func asPublic(_ name: HeldName) -> PublicExposure {
        name.asPublic(peer: self.sessions?[name.link]?.label.peer)
    }

    /// Has all registrars publish the name.
    private func publish(_ id: ExposureID) {
        guard let name = self.names[id] else { return }
        self.registrars.publish(self.asPublic(name)) { [weak self] isPublished in
            self?.act { $0.published(id, failure: isPublished ? nil : "the name cannot be published now") }
        }
    }

    private func grant(_ id: ExposureID, _ link: LinkID, _ number: UInt16) {
        guard let name = self.names[id] else { return }
        let former = self.takeovers.removeValue(forKey: id)
        let note =
            self.sessions?[link]?.takesNotes == true ? former.map { "taken over from another program at \($0)" } : nil
        self.answer(
            link, number, .none, port: name.address?.port ?? 0,
            text: Registered.text(address: self.shown(name), note: note))
        self.names[id]?.isPublished = true
        self.send(.publish(id))
        self.metrics.nameRegistered()
    }

    /// The address of a name, as sent to its agent.
    private func shown(_ name: HeldName) -> String {
        if let url = self.publicURL { return url.replacing("{name}", with: name.name.text) }
        return name.address?.description ?? "behind the gateway's proxy"
    }

    private func withdraw(_ id: ExposureID) {
        self.takeovers[id] = nil
        guard let name = self.names.removeValue(forKey: id) else { return }
        // First: when the registrars log that the name is gone, its listeners must be closed.
        self.listeners.end(name.listeners, of: name.name, name.identity, leavesThem: self.machine.isDraining)
        self.send(.withdraw(id))
        self.registrars.withdraw(self.asPublic(name))
    }
}
