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

/// What ``GatewayNames`` needs of the gateway.
protocol NameHost: AnyObject {
    /// Nil when the link is gone.
    func session(_ link: LinkID) -> AgentSession?
    func makeExposure(_ id: ExposureID, _ request: PortRequest, _ listeners: NameListeners) -> Exposure
}

/// Carries out what the ``GatewayMachine`` decides about links and names, and tells it what has become of it. Sessions
/// hand it the events of their links.
final class GatewayNames {
    private struct Question: Hashable {
        let link: LinkID
        let number: UInt16
    }

    private let loop: EventLoop
    private let metrics: GatewayMetrics
    private let publicURL: String?
    private let authenticator: any Authenticator
    let registrars: RegistrarSet
    let listeners: PublicListeners
    private let ports: PortStore
    private var machine: GatewayMachine
    private var exposures: [ExposureID: Exposure] = [:]
    /// To the authenticator.
    private var questions: [Question: any Cancellable] = [:]
    private var isActing = false
    weak var host: (any NameHost)?

    init(
        loop: EventLoop, settings: GatewaySettings, limits: GatewayMachine.Limits, metrics: GatewayMetrics,
        authenticator: any Authenticator, registrars: RegistrarSet, listeners: PublicListeners, ports: PortStore
    ) {
        self.loop = loop
        self.metrics = metrics
        self.publicURL = settings.publicURL
        self.authenticator = authenticator
        self.registrars = registrars
        self.listeners = listeners
        self.ports = ports
        self.machine = GatewayMachine(limits, ledger: ports.load(namesPerAgent: limits.namesPerAgent))
        ports.start { [unowned self] in self.machine.ledger }
    }

    /// Names can be registered from now on.
    func start() {
        self.listeners.start()
        self.registrars.start()
    }

    /// Call it about once a second.
    func tick() {
        self.ports.tick()
        self.listeners.tick()
        self.machine.tick(now: self.loop.now)
    }

    /// From here on names are withdrawn because the gateway stops.
    func willStop() { self.machine.drain() }

    /// What is being withdrawn is given a moment.
    func close() {
        self.ports.saveNow()
        self.listeners.close()
        self.registrars.close()
    }

    var nameCount: Int { self.machine.nameCount }

    func isOnlyAgent(_ agent: AgentIdentity) -> Bool { self.machine.registry.isOnlyHolder(agent) }

    // MARK: - Events

    /// See ``GatewayMachine/loggedIn(_:_:maxLinks:)``.
    func loggedIn(_ link: LinkID, _ login: GatewayMachine.Login, maxLinks: Int) -> Refusal? {
        let refusal = self.machine.loggedIn(link, login, maxLinks: maxLinks)
        self.act()
        return refusal
    }

    func linkIsDraining(_ link: LinkID) { self.act { $0.linkIsDraining(link) } }

    func linkIsEnding(_ link: LinkID) { self.machine.linkIsEnding(link) }

    func linkEnded(_ link: LinkID) { self.act { $0.linkEnded(link) } }

    func dropNames(of link: LinkID) { self.act { $0.dropNames(of: link) } }

    func register(_ link: LinkID, _ register: Register) {
        self.act { $0.register(link, register, now: self.loop.now) }
    }

    func unregister(_ link: LinkID, number: UInt16) { self.act { $0.unregister(link, number: number) } }

    func probed(_ exposure: Exposure, over link: LinkID) { self.act { $0.probed(exposure.id, over: link) } }

    func changed(_ identity: AgentIdentity, _ limits: AgentLimits) {
        self.act { $0.changed(identity, maxLinks: limits.links, maxNames: limits.names) }
    }

    func revoked(_ link: LinkID) { self.act { $0.revoked(link) } }

    func confirmed(_ exposure: Exposure, ports: [ClosedRange<UInt16>]) {
        self.act { $0.confirmed(exposure.id, ports: ports) }
    }

    func revoke(_ exposure: Exposure, _ code: ErrorCode, reason: String) {
        self.act { $0.revoke(exposure.id, code, reason: reason) }
    }

    /// Asks whether an agent may have a name.
    func authorize(
        _ request: NameRequest, completion: @escaping (NameVerdict) -> Void
    ) -> DeadlinedOperation<NameVerdict> {
        DeadlinedOperation(
            loop: self.loop, milliseconds: moduleDeadline,
            late: .refused(.overloaded, reason: "the authenticator did not answer in time"),
            start: { self.authenticator.authorize(request, completion: $0) },
            completion: self.metrics.timing(.name, completion))
    }

    // MARK: - Effects

    private func act(_ event: (inout GatewayMachine) -> Void = { _ in }) {
        event(&self.machine)
        // An effect may lead to the next event at once.
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
        case .attach(let id, let link, let number): self.attach(id, link, number)
        case .probe(let id, let link):
            if let exposure = self.exposures[id] { self.session(link)?.probes.begin(exposure) }
        case .publish(let id): self.publish(id)
        case .grant(let id, let link, let number): self.grant(id, link, number)
        case .withdraw(let id): self.withdraw(id)
        case .refuse(let link, let number, let refusal):
            self.metrics.nameRefused(refusal.code)
            self.session(link)?.answer(number, refusal.code, text: refusal.text)
        case .takeBack(let link, let number, let refusal):
            self.session(link)?.answer(number, refusal.code, text: refusal.text)
        case .lost(let link, let name, let code): self.session(link)?.log(lost: name, code)
        case .warn(let link, let warning): self.session(link)?.log(warning)
        case .cutStreams(let link, let number): self.session(link)?.link.abortStreams(of: number, .revoked)
        case .end(let link, let refusal, let seconds):
            self.session(link)?.link.end(refusal.code, retryAfterSeconds: seconds, text: refusal.text)
        case .close(let link):
            // The program knows; words would only keep the connection longer.
            self.session(link)?.link.close(.ended(.replaced, "the program has a newer link"))
        case .hit(.registrations): self.metrics.hit(.registrations)
        case .hit(.registrationTable(let count)): self.metrics.hit(.registrationTable, count)
        case .hit(.withdrawals): self.metrics.hit(.withdrawals)
        case .savePorts: self.ports.changed()
        }
    }

    private func session(_ link: LinkID) -> AgentSession? { self.host?.session(link) }

    private func ask(_ link: LinkID, _ number: UInt16, _ name: Name, _ port: UInt16) {
        guard let session = self.session(link), let identity = session.identity else { return }
        let request = NameRequest(identity: identity.id, peer: session.peer, name: name, port: port)
        let question = self.authorize(request) { [weak self] verdict in
            guard let self else { return }
            _ = self.endQuestion(link, number)
            self.act { machine in
                switch verdict {
                case .granted(let ports):
                    machine.authorized(
                        link, number: number, ports: ports,
                        isFull: { self.registrars.isFull(for: $0, of: $1) }, now: self.loop.now)
                case .refused(let code, let reason): machine.refused(link, number: number, code, reason: reason)
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
        self.session(link)?.questionCount -= 1
        return question
    }

    private func open(_ id: ExposureID, _ request: PortRequest) {
        let link = self.machine.link(of: id)
        let result = self.listeners.open(request, isKept: { self.machine.ledger.isKept($0) }) { level, text, metadata in
            link.flatMap { self.session($0) }?.log(level, text, of: request.name, metadata)
        }
        switch result {
        case .failure(let refusal): self.machine.notOpened(id, refusal)
        case .success(let listeners):
            self.exposures[id] = self.host?.makeExposure(id, request, listeners)
            self.machine.opened(id, port: listeners.address?.port ?? 0)
        }
    }

    private func attach(_ id: ExposureID, _ link: LinkID, _ number: UInt16) {
        guard let exposure = self.exposures[id], let session = self.session(link) else { return }
        exposure.session?.detach(exposure)
        session.attach(exposure, number: number)
    }

    /// Has all registrars publish the exposure.
    private func publish(_ id: ExposureID) {
        guard let exposure = self.exposures[id] else { return }
        self.registrars.publish(exposure.asPublic) { [weak self] isPublished in
            self?.act { $0.published(id, failure: isPublished ? nil : "the name cannot be made reachable now") }
        }
    }

    private func grant(_ id: ExposureID, _ link: LinkID, _ number: UInt16) {
        guard let exposure = self.exposures[id] else { return }
        self.session(link)?.answer(number, .none, port: exposure.address?.port ?? 0, text: self.shown(exposure))
        exposure.published()
        self.metrics.nameRegistered()
    }

    /// The address of a name, as its agent receives it.
    private func shown(_ exposure: Exposure) -> String {
        if let url = self.publicURL { return url.replacing("{name}", with: exposure.name.text) }
        return exposure.address?.description ?? "behind the gateway's proxy"
    }

    private func withdraw(_ id: ExposureID) {
        guard let exposure = self.exposures.removeValue(forKey: id) else { return }
        exposure.session?.detach(exposure)
        // Before the registrars log that the name is gone: by then it must be.
        exposure.close()
        self.listeners.end(
            exposure.listeners, of: exposure.name, exposure.identity, leavesThem: self.machine.isDraining)
        self.registrars.withdraw(exposure.asPublic)
    }
}
