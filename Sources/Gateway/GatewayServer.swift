internal import Admission
internal import Journal
package import Logging
internal import Modules
package import Reactor
internal import Registry
internal import Relay
internal import Secure
package import Settings
package import Supervision
internal import Timing
internal import Tunnel
internal import Web
internal import Wire

/// The gateway: listeners for agents, their sessions, admission, drain. Names are kept by its ``ExposureBook``.
package final class GatewayServer {
    private enum Phase {
        case running
        case draining(until: UInt64)
        case stopped
    }

    /// The modules get this long for one question or action.
    static let moduleDeadline: UInt64 = 10_000
    private static let drainMilliseconds: UInt64 = 30_000
    /// An installation's agents share one identity at an open gateway, so this bounds programs on one machine.
    static let mostLinksPerIdentity = 16
    /// A link of version 1 has one name, one of version 2 sixteen.
    static let mostVersion1LinksPerIdentity = 16 * ExposureBook.maximumNamesPerLink
    /// Links of one program: its present one, and one that does not know yet that it is dead.
    private static let mostLinksPerRun = 2
    /// A jump of the boot clock against the monotonic one by more than this was a sleep of the machine.
    private static let sleepThreshold: Int64 = 2_000
    private static let tickMilliseconds: UInt64 = 1_000
    /// What has to be done each second is late by so much only when something hangs.
    private static let mostTickPause: UInt64 = 10_000

    package let loop: EventLoop
    let logger: Logger
    let exposures: ExposureBook
    let visitors: VisitorBook
    let metrics = GatewayMetrics()
    let settings: GatewaySettings
    private let manager: ServiceManager
    private let state: StateDirectory
    let identity: Identity
    private let context: TLSContext
    private let buffers = RelayBuffers()
    let budget: ByteBudget
    let plan: ResourcePlan
    let authenticator: any Authenticator
    var admission: Admission
    private(set) var bans = BanList()
    let doors: Doors
    let startedAt: UInt64
    private(set) var control: GatewayControl?
    private(set) var sessions: [UInt64: AgentSession] = [:]
    private var nextID: UInt64 = 1
    private var phase = Phase.running
    private var metricsServer: DocumentServer?
    private var housekeeping: LoopTimer?
    private var signals: [SignalSource] = []
    private var tickedAt: UInt64
    private var suspended = EventLoop.suspendedMilliseconds
    private var noise: TokenBucket
    private var suppressed = 0

    /// Prepares everything that can fail without listening yet.
    ///
    /// - Parameters:
    ///   - manager: nil: nobody started us who wants to hear of it.
    ///   - holdMilliseconds: how long names of a former run are kept for their agents.
    package init(
        loop: EventLoop, settings: GatewaySettings, logger: Logger, manager: ServiceManager? = nil,
        holdMilliseconds: UInt64 = ListenerStore.holdMilliseconds
    ) throws(GatewayError) {
        self.loop = loop
        self.startedAt = loop.now
        self.settings = settings
        self.tickedAt = loop.now
        let manager = manager ?? .absent(loop: loop, logger: logger)
        self.manager = manager
        self.logger = logger
        guard let bind = SocketAddress(settings.exposeBind == "localhost" ? "127.0.0.1" : settings.exposeBind, port: 0)
        else {
            throw GatewayError(
                .configuration, "expose-bind: '\(settings.exposeBind)' is no address: write 0.0.0.0 or ::")
        }
        do throws(SettingsError) {
            self.state = try StateDirectory(path: settings.stateDirectory)
            try self.state.lockExclusively()
        } catch { throw GatewayError(.state, error.description) }
        self.identity = try GatewayIdentity.load(settings, self.state)
        do throws(SecurityError) {
            self.context = try .server(
                identity: self.identity, applicationProtocol: WireConstant.applicationProtocol)
        } catch { throw GatewayError(.configuration, "TLS: \(error)") }
        let descriptors = DescriptorLimit.raise()
        let listeners = settings.listenersPerName
        self.plan = ResourcePlan(descriptors: descriptors, listenersPerName: listeners)
        if self.plan != ResourcePlan(descriptors: .max, listenersPerName: listeners) {
            let plan = self.plan
            logger.warning(
                """
                only \(descriptors) file descriptors are allowed: at most \(plan.agents) agents, \(plan.names) names \
                and \(plan.visitors) visitors at once
                """)
        }
        var visitorLimits = VisitorLimits()
        visitorLimits.total = self.plan.visitors
        self.visitors = VisitorBook(
            loop: loop, limits: visitorLimits, proxies: settings.proxies,
            socketsAreProxied: settings.socketsAreProxied)
        var admissionLimits = AdmissionLimits()
        admissionLimits.strangers = self.plan.strangers
        self.admission = Admission(limits: admissionLimits)
        self.budget = ByteBudget(limit: ResourcePlan.memoryLimit() / 10 * 6)
        let factory = ModuleFactory(loop: loop, logger: logger)
        let registrars: [any Registrar]
        do throws(SettingsErrors) {
            registrars = try factory.registrars(settings.registrars)
            do throws(SettingsErrors) { self.authenticator = try factory.authenticator(settings.authentication) } catch
            {
                for registrar in registrars { registrar.close() }
                throw error
            }
        } catch { throw GatewayError(.configuration, error.description) }
        do throws(SettingsError) {
            self.exposures = try ExposureBook(
                loop: loop, logger: logger, bindAddress: bind, settings: settings, mostNames: self.plan.names,
                registrars: registrars,
                ports: PortStore(loop: loop, path: self.state.file("ports.json"), logger: logger),
                store: ListenerStore(
                    loop: loop, manager: manager, holdMilliseconds: holdMilliseconds, logger: logger))
        } catch {
            for registrar in registrars { registrar.close() }
            self.authenticator.close()
            throw GatewayError(.state, error.description)
        }
        self.doors = Doors(loop: loop, logger: logger, settings: settings)
        self.noise = TokenBucket(burst: 20, perSecond: 5, now: loop.now)
    }

    // MARK: - Start

    /// Listens. Afterwards run the loop.
    package func start() throws(GatewayError) {
        // First of all: whoever reads the first line of the log may already ask for the end.
        do throws(UVError) {
            for signal in [SignalSource.Signal.terminate, .interrupt] {
                self.signals.append(try SignalSource(loop: self.loop, signal) { [unowned self] in self.stop() })
            }
            // Its default would be the end of the process.
            self.signals.append(
                try SignalSource(loop: self.loop, .hangUp) { [unowned self] in
                    self.logger.info("SIGHUP: reading the agents anew")
                    self.reload()
                })
        } catch { self.logger.error("signals are not handled: \(error)") }
        do throws(GatewayError) {
            if let metrics = self.settings.metrics { self.metricsServer = try MetricsDoor.open(metrics, self) }
            try self.doors.open(self, inherited: self.manager.sockets)
            let control = GatewayControl(gateway: self)
            self.control = control
            try control.open(self.settings.control)
        } catch {
            self.tearDown()
            throw error
        }
        self.logger.info("pin \(self.identity.pin)")
        switch self.settings.authentication {
        case .byDefault(let path):
            if FileAccess.exists(path) {
                self.logger.info("agents are those of \(path)")
            } else {
                self.logger.info(
                    """
                    open to agents of this machine only; 'diglett-server agent add NAME' makes the first agent for \
                    others, --auth open would take any agent from anywhere
                    """)
            }
        case .file(let path): self.logger.info("agents are those of \(path)")
        case .hook(.exec(let exec)): self.logger.info("agents are judged by \(exec.command[0])")
        case .hook(.webhook(let webhook)): self.logger.info("agents are judged by \(webhook.shownURL)")
        case .open:
            self.logger.warning("open to every agent from everywhere: whoever reaches the port can expose names")
        }
        if let place = self.metricsServer?.place {
            self.logger.info("metrics are shown on \(place)", metadata: .about([.address: place]))
        }
        self.exposures.start()
        if !self.settings.proxies.isEmpty {
            let networks = self.settings.proxies.map(\.description).joined(separator: ", ")
            self.logger.info("visitors from \(networks) must begin with a PROXY header, which is believed")
        }
        let housekeeping = LoopTimer(loop: self.loop) { [unowned self] in self.tick() }
        housekeeping.start(after: Self.tickMilliseconds, repeating: Self.tickMilliseconds)
        self.housekeeping = housekeeping
        self.authenticator.onChange { [weak self] in
            self?.recheckRights()
        }
        self.manager.started(status: self.status) { [weak self] in self?.isWell ?? true }
    }

    private func recheckRights() {
        for session in self.sessions.values { session.recheckRights(self.authenticator) }
        let open = self.sessions.values.filter { $0.connection.isOpen && $0.grant != nil }
        for sessions in Dictionary(grouping: open, by: { $0.grant?.identity }).values {
            guard let limits = sessions[0].grant.flatMap({ self.authenticator.limits(of: $0) }) else { continue }
            AgentSession.enforce(limits, on: sessions)
        }
    }

    // MARK: - What the service manager is told

    /// Whether the work is done that must be done each second, and agents can come.
    private var isWell: Bool {
        switch self.phase {
        case .running: self.loop.now - self.tickedAt < Self.mostTickPause && self.doors.areOpen
        case .draining: self.loop.now - self.tickedAt < Self.mostTickPause
        case .stopped: true
        }
    }

    /// Addresses on which agents are listened for.
    package var agentAddresses: [SocketAddress] { self.doors.addresses(isVersion1: false) }
    /// The same for agents of version 1.
    package var version1Addresses: [SocketAddress] { self.doors.addresses(isVersion1: true) }

    // MARK: - Strangers

    func admissionProgressed(_ session: AgentSession) {
        self.admission.progressed(session.id, now: self.loop.now)
    }

    /// It is no stranger any more, but somebody to be judged.
    func loginArrived(_ session: AgentSession) {
        self.admission.left(session.id)
    }

    func penalize(_ session: AgentSession, _ offence: Offence) {
        self.admission.penalize(session.source, offence, now: self.loop.now)
    }

    /// A connection ended before its login.
    func strangerLeft(_ session: AgentSession, _ end: LinkEnd) {
        switch end {
        case .ended(.loginRefused, _), .ended(.notLoopback, _), .ended(.tooManyLinks, _), .ended(.drain, _),
            .ended(.overloaded, _):
            return
        case .ended(.handshakeTimeout, _): self.penalize(session, .tooSlow)
        case .closedByPeer, .failed: self.penalize(session, .noLogin)
        case .security, .otherProtocol, .violation, .ended, .goAway: self.penalize(session, .protocolError)
        }
        self.noisy("no login from \(session.label): \(end)", session.about([:]))
    }

    func authenticate(
        _ request: LoginRequest, completion: @escaping (LoginVerdict) -> Void
    ) -> any Cancellable {
        DeadlinedOperation(
            loop: self.loop, milliseconds: Self.moduleDeadline,
            late: .refused(.overloaded, reason: "the authenticator did not answer in time"),
            start: { self.authenticator.authenticate(request, completion: $0) },
            completion: self.metrics.timing(.login, completion))
    }

    func authorize(_ request: NameRequest, completion: @escaping (NameVerdict) -> Void) -> any Cancellable {
        DeadlinedOperation(
            loop: self.loop, milliseconds: Self.moduleDeadline,
            late: .refused(.overloaded, reason: "the authenticator did not answer in time"),
            start: { self.authenticator.authorize(request, completion: $0) },
            completion: self.metrics.timing(.name, completion))
    }

    func session(_ id: UInt64) -> AgentSession? { self.sessions[id] }

    func hasLink(of identity: AgentIdentity) -> Bool {
        self.sessions.values.contains { $0.identity == identity && $0.connection.isOpen }
    }

    /// Whether a name is published only when its backend answers.
    var probesBackends: Bool { self.settings.probesBackends }

    var isDraining: Bool {
        if case .running = self.phase { false } else { true }
    }

    /// Why an agent gets no further link, if so. A former link of the same program makes way.
    ///
    /// - Parameter most: links that the agent may have.
    func refusalForLink(of identity: AgentIdentity, run: UInt64, most: Int) -> Refusal? {
        guard case .running = self.phase else { return Refusal(code: .drain, text: "the gateway stops") }
        let links = self.sessions.values.filter { $0.identity == identity && $0.connection.isOpen }
        let own = links.filter { $0.run == run }.sorted { $0.id < $1.id }
        let former = own.dropLast(Self.mostLinksPerRun - 1)
        guard links.count - own.count < most else {
            return Refusal(code: .tooManyLinks, text: "the agent has \(links.count) links already")
        }
        let agents = self.sessions.values.count(where: { $0.identity != nil && $0.connection.isOpen })
        guard agents - former.count < self.plan.agents else {
            return Refusal(code: .tooManyLinks, text: "the gateway has no room for more agents")
        }
        for session in former {
            // The program knows; words would only keep the connection longer.
            session.connection.close(.ended(.replaced, "the program has a newer link"))
        }
        return nil
    }

    // MARK: - What the operator asks for

    /// Reads anew who has which rights, and has the registrars look after their names.
    func reload() {
        // A program that ends is not ready any more.
        guard !self.isDraining else { return self.authenticator.reload() }
        self.manager.reloading {
            self.authenticator.reload()
            self.exposures.reconcile()
        }
    }

    /// False when there are as many bans as there may be.
    func ban(_ network: Network, until: UInt64?) -> Bool { self.bans.add(network, until: until) }

    /// False when the network is not banned.
    func unban(_ network: Network) -> Bool { self.bans.remove(network) }

    // MARK: - Visitors

    /// Logs what strangers and visitors could cause without end, and so not all of it.
    func noisy(_ message: @autoclosure () -> String, _ metadata: @autoclosure () -> Logger.Metadata) {
        guard self.noise.take(now: self.loop.now) else {
            self.suppressed += 1
            return
        }
        let text = message()
        self.logger.info("\(text)", metadata: metadata())
    }

    // MARK: - Time and the end

    private func tick() {
        self.metrics.ticked(now: self.loop.now, period: Self.tickMilliseconds)
        self.tickedAt = self.loop.now
        self.manager.setStatus(self.status)
        self.manager.tick()
        for session in self.sessions.values { session.tick() }
        self.exposures.tick()
        self.visitors.tick()
        self.bans.forgetExpired(now: self.loop.now)
        let suspended = EventLoop.suspendedMilliseconds
        if suspended - self.suspended > Self.sleepThreshold {
            self.logger.info("the machine slept; asking all agents whether they are still there")
            for session in self.sessions.values { session.connection.clockJumped() }
        }
        self.suspended = suspended
        if self.suppressed > 0, self.noise.take(now: self.loop.now) {
            self.logger.info("\(self.suppressed) further messages about visitors and strangers were left out")
            self.suppressed = 0
        }
        if case .draining(let until) = self.phase {
            for session in self.sessions.values where session.connection.link.streamCount == 0 { session.drain() }
            if self.loop.now >= until {
                self.logger.warning("some streams were not done in time and are cut")
                self.cutAll()
            }
        }
    }

    /// Streams of all links.
    package var streamCount: Int { self.sessions.values.reduce(0) { $0 + $1.connection.link.streamCount } }

    /// Ends in order: no new agents and visitors, what runs may finish. A second call ends at once.
    package func stop() {
        switch self.phase {
        case .running:
            self.phase = .draining(until: self.loop.now + Self.drainMilliseconds)
            self.exposures.willStop()
            self.manager.stopping(status: self.status)
            let streams = self.streamCount
            if streams > 0 { self.logger.info("stopping when \(streams) streams are done; a second signal cuts them") }
            self.doors.close()
            for session in self.sessions.values { session.drain() }
            self.finishIfEmpty()
        case .draining: self.cutAll()
        case .stopped: break
        }
    }

    private func cutAll() {
        for session in self.sessions.values { session.connection.close(.ended(.drain, "the gateway stops")) }
    }

    func sessionClosed(_ session: AgentSession) {
        self.admission.left(session.id)
        self.sessions[session.id] = nil
        self.finishIfEmpty()
    }

    /// A stream of a session that drains may have been the last.
    private func finishIfEmpty() {
        guard case .draining = self.phase, self.sessions.isEmpty else { return }
        self.phase = .stopped
        self.tearDown()
    }

    private func tearDown() {
        self.doors.close()
        self.metricsServer?.close()
        self.metricsServer = nil
        self.control?.close()
        self.housekeeping?.close()
        self.housekeeping = nil
        for signal in self.signals { signal.close() }
        self.signals = []
        SignalSource.ignoreStopSignals()
        self.authenticator.close()
        self.exposures.close()
    }
}

extension GatewayServer: SocketListenerDelegate {
    package func listener(_ listener: SocketListener, didAccept stream: SocketStream) {
        guard let peer = stream.peerAddress else {
            self.metrics.arrived(.gone)
            return stream.reset()
        }
        guard !self.bans.contains(peer) else {
            self.metrics.arrived(.banned)
            return stream.reset()
        }
        guard self.hasRoomForSession() else {
            self.metrics.arrived(.noRoom)
            return stream.reset()
        }
        let id = self.nextID
        self.nextID += 1
        let source = Source(key: peer.source, isLoopback: peer.isLoopback)
        switch self.admission.connected(id, from: source, now: self.loop.now) {
        case .admit: break
        case .admitInsteadOf(let other):
            // No offence: whoever is slow in a crowd has done nothing.
            self.sessions[other]?.connection.close(.ended(.tooManyLinks, "made room for a newer connection"))
        case .refuse(let milliseconds):
            self.metrics.arrived(.penalty)
            self.noisy(
                "\(peer) is kept out for \(milliseconds / 1_000) s after what it did before", .about([.peer: peer]))
            return stream.reset()
        }
        self.metrics.arrived(.admitted)
        let version = self.doors.isVersion1(listener) ? LinkProtocol.version1 : .version2(self.context, serverName: nil)
        do throws(SecurityError) {
            let connection = try LinkConnection(
                socket: stream, version: version, role: .gateway, budget: self.budget, buffers: self.buffers,
                software: GatewayServer.software, meter: self.metrics.relay)
            self.sessions[id] = AgentSession(id: id, connection: connection, peer: peer, gateway: self)
            connection.start()
        } catch {
            self.admission.left(id)
            self.logger.error("\(peer): \(error)", metadata: .about([.peer: peer]))
            stream.close()
        }
    }

    /// Makes room, if need be, by cutting a connection that only waits for its last words to be read.
    private func hasRoomForSession() -> Bool {
        guard self.sessions.count >= self.plan.agents + self.plan.strangers else { return true }
        guard let last = self.sessions.values.first(where: { $0.connection.isLingering }) else { return false }
        last.connection.close(.ended(.tooManyLinks, "made room for a newer connection"))
        return true
    }

    package func listener(_ listener: SocketListener, didFail error: UVError) {
        self.noisy("an agent could not be accepted: \(error)", .about([.error: error]))
    }
}

extension GatewayServer {
    /// What HELLO tells of this program.
    package static let software = "diglett-server/\(version)"

    static let version = "2.0.0"
}
