internal import GatewayCore
internal import Journal
package import Logging
internal import Modules
package import Reactor
internal import Relay
internal import Secure
package import Settings
package import Supervision
internal import Timing
internal import Tunnel
internal import Web
internal import Wire

/// The gateway: listeners for agents, their sessions, admission, drain. Names are kept by its ``GatewayNames``.
package final class GatewayServer: HousekeptProgram {
    private enum Phase {
        case running
        case draining(until: UInt64)
        case stopped
    }

    private static let drainMilliseconds: UInt64 = 30_000

    package let loop: EventLoop
    let logger: Logger
    /// For every line that an agent, a visitor or an unauthenticated connection can cause.
    let peerLog: PeerLog
    let names: GatewayNames
    let visitors: VisitorTable
    let metrics = GatewayMetrics()
    let settings: GatewaySettings
    private let manager: ServiceManager
    private let state: StateDirectory
    let certificate: CertificateWatch
    let buffers = RelayBuffers()
    let budget: ByteBudget
    /// Of every link.
    let linkLimits: LinkLimits
    let plan: ResourcePlan
    let authenticator: any Authenticator
    var admission: Admission
    private(set) var bans = BanList()
    let refusedAgents: RefusedAgents
    let agentListeners: AgentListeners
    let startedAt: UInt64
    /// When it began to run, or to drain.
    private(set) var stateBegan: UInt64
    private(set) var control: GatewayControl?
    var sessions: [UInt64: AgentSession] = [:]
    /// Sessions whose link is over, while visitors still get what came before.
    private var delivering: [UInt64: AgentSession] = [:]
    /// Of the connection that comes next.
    var nextID: UInt64 = 1
    private var phase = Phase.running
    let stalled = StalledStreams()
    private var metricsServer: DocumentServer?
    private let housekeeping: Housekeeping
    let review: RightsReview
    let sources: SourceRules

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
        self.stateBegan = loop.now
        self.settings = settings
        let manager = manager ?? .absent(loop: loop, logger: logger)
        self.manager = manager
        self.logger = logger
        self.housekeeping = Housekeeping(loop: loop, manager: manager, logger: logger)
        let peerLog = PeerLog(logger, loop: loop)
        self.peerLog = peerLog
        let hosts = try PublicHosts(settings.exposeBind)
        do throws(SettingsError) {
            self.state = try StateDirectory(path: settings.stateDirectory)
            try self.state.lockExclusively()
        } catch { throw GatewayError(.state, error.description) }
        self.certificate = try CertificateWatch(loop: loop, settings: settings, state: self.state, logger: logger)
        let descriptors = DescriptorLimit.raise()
        let memory = ResourcePlan.memoryLimit()
        self.plan = ResourcePlan(
            settings.limits, descriptors: descriptors, memory: memory, listenersPerName: settings.listenersPerName)
        if let text = self.plan.loweredText(descriptors: descriptors, memory: memory) { logger.warning("\(text)") }
        self.refusedAgents = RefusedAgents(most: self.plan.refused)
        self.linkLimits = LinkLimits(settings.limits)
        self.sources = SourceRules(trusted: settings.trustedNetworks, proxies: settings.proxies)
        self.visitors = VisitorTable(
            loop: loop, limits: VisitorLimits(settings.limits, self.plan), rules: self.sources,
            socketsAreProxied: settings.socketsAreProxied)
        var admissionLimits = AdmissionLimits()
        admissionLimits.strangers = self.plan.strangers
        admissionLimits.logins = self.plan.logins
        admissionLimits.loginsPerSource = min(admissionLimits.loginsPerSource, self.plan.logins / 4)
        admissionLimits.maxWait = min(
            admissionLimits.maxWait, self.linkLimits.handshakeDeadline / AdmissionLimits.waitShare)
        self.admission = Admission(limits: admissionLimits)
        self.budget = ByteBudget(limit: self.plan.memory)
        let factory = ModuleFactory(loop: loop, peerLog: peerLog)
        let registrars = try factory.registrars(settings.registrars)
        do throws(SettingsErrors) { self.authenticator = try factory.authenticator(settings.authentication) } catch {
            for registrar in registrars { registrar.close() }
            throw GatewayError(.configuration, error.description)
        }
        do throws(SettingsError) {
            let drivers = RegistrarSet(
                registrars.map {
                    RegistrarDriver(loop: loop, registrar: $0, limits: WithdrawalLimits(settings.limits), log: peerLog)
                })
            let store = ListenerStore(
                loop: loop, manager: manager, holdMilliseconds: holdMilliseconds, logger: logger)
            let limits = GatewayMachine.Limits(settings, self.plan)
            self.names = GatewayNames(
                loop: loop, settings: settings, limits: limits,
                metrics: self.metrics, authenticator: self.authenticator, registrars: drivers,
                listeners: try PublicListeners(
                    loop: loop, hosts: hosts, ports: limits.ports, settings: settings, store: store,
                    registrars: drivers),
                ports: PortStore(loop: loop, path: self.state.file("ports.json"), logger: logger))
        } catch {
            for registrar in registrars { registrar.close() }
            self.authenticator.close()
            throw GatewayError(.state, error.description)
        }
        self.agentListeners = AgentListeners(loop: loop, logger: logger, settings: settings)
        self.review = RightsReview(loop: loop)
        self.visitors.room = self
        self.names.host = self
    }

    // MARK: - Start

    /// Listens. Afterwards run the loop.
    package func start() throws(GatewayError) {
        // First of all: whoever reads the first line of the log may already ask for the end.
        self.housekeeping.start(self)
        do throws(GatewayError) {
            if let metrics = self.settings.metrics { self.metricsServer = try MetricsListener.open(metrics, self) }
            try self.agentListeners.open(self, inherited: self.manager.sockets)
            let control = GatewayControl(gateway: self)
            self.control = control
            try control.open(self.settings.control)
        } catch {
            self.tearDown()
            throw error
        }
        self.announce(metrics: self.metricsServer?.place)
        for address in self.names.listeners.hosts.missing {
            self.logger.error(
                "expose-bind: this machine does not have the address \(address.host); names wait until it has")
        }
        self.certificate.start()
        self.names.start()
        self.authenticator.onChange { [weak self] in
            self?.recheckRights()
        }
        self.housekeeping.started()
    }

    // MARK: - What the service manager is told

    /// Whether agents can come.
    package func isWell(onTime: Bool) -> Bool {
        switch self.phase {
        case .running: onTime && self.agentListeners.areOpen
        case .draining: onTime
        case .stopped: true
        }
    }

    /// Addresses on which agents are listened for.
    package var agentAddresses: [SocketAddress] { self.agentListeners.addresses(isVersion1: false) }
    /// The same for agents of version 1.
    package var version1Addresses: [SocketAddress] { self.agentListeners.addresses(isVersion1: true) }

    var isDraining: Bool {
        if case .running = self.phase { false } else { true }
    }

    // MARK: - What the operator asks for

    package func hungUp() {
        self.logger.info("SIGHUP: reading the agents and the certificate again")
        self.reload()
    }

    /// Reads again who has which rights, and the certificate; has the registrars look after their names.
    package func reload() {
        // A program that ends is not ready any more.
        guard !self.isDraining else { return self.authenticator.reload() }
        self.manager.reloading {
            self.authenticator.reload()
            self.certificate.reload()
            self.names.registrars.reconcile()
        }
    }

    /// False when there are as many bans as there may be.
    func ban(_ network: Network, until: UInt64?) -> Bool { self.bans.add(network, until: until) }

    /// False when the network is not banned.
    func unban(_ network: Network) -> Bool { self.bans.remove(network) }

    // MARK: - Time and the end

    package func tick(slept: Bool) {
        self.metrics.ticked(now: self.loop.now, period: Housekeeping.period)
        for session in self.sessions.values { session.tick() }
        self.names.tick()
        self.visitors.tick()
        self.buffers.isCrowded = self.visitors.isCrowded
        let ended = self.stalled.relieve(self.budget, among: { self.ownedLinks }, now: self.loop.now)
        if ended > 0 {
            self.metrics.hit(.memory, ended)
            self.logger.warning("memory is short: \(counted(ended, "stalled stream")) ended, the longest-stalled first")
        }
        self.bans.forgetExpired(now: self.loop.now)
        self.refusedAgents.tick()
        if slept {
            self.logger.info("the machine slept; asking all agents whether they are still there")
            for session in self.sessions.values { session.link.clockJumped() }
        }
        self.peerLog.tick()
        if case .draining(let until) = self.phase {
            for session in self.sessions.values where session.link.streamCount == 0 { session.drain() }
            if self.loop.now >= until {
                self.logger.warning("some streams were not done in time and are cut")
                self.cutAll()
            }
        }
    }

    var deliveringSessions: [AgentSession] { self.delivering.values.sorted { $0.id < $1.id } }

    /// Streams of all links.
    package var streamCount: Int {
        let running = self.sessions.values.reduce(0) { $0 + $1.link.streamCount }
        return self.delivering.values.reduce(running) { $0 + $1.link.streamCount }
    }

    var whenStreamsAreDone: String {
        let count = self.streamCount
        return "when \(counted(count, "stream")) \(count == 1 ? "is" : "are") done"
    }

    /// Ends in order: no new agents and visitors, what runs may finish. A second call ends at once.
    package func stop() {
        switch self.phase {
        case .running:
            self.phase = .draining(until: self.loop.now + Self.drainMilliseconds)
            self.stateBegan = self.loop.now
            self.names.willStop()
            self.manager.stopping(status: self.status)
            if self.streamCount > 0 {
                let them = self.streamCount == 1 ? "it" : "them"
                self.logger.info("stopping \(self.whenStreamsAreDone); a second signal cuts \(them)")
            }
            self.agentListeners.close()
            for session in self.sessions.values { session.drain() }
            self.finishIfEmpty()
        case .draining: self.cutAll()
        case .stopped: break
        }
    }

    private func cutAll() {
        for session in self.sessions.values { session.link.close(.ended(.drain, "the gateway stops")) }
        for session in self.delivering.values { session.link.cutDeliveries() }
    }

    func sessionEnded(_ session: AgentSession) {
        self.admission.left(session.id)
        self.sessions[session.id] = nil
        self.delivering[session.id] = session
    }

    func sessionEmptied(_ session: AgentSession) {
        self.delivering[session.id] = nil
        self.finishIfEmpty()
    }

    /// A stream of a session that drains may have been the last.
    private func finishIfEmpty() {
        guard case .draining = self.phase, self.sessions.isEmpty, self.delivering.isEmpty else { return }
        self.phase = .stopped
        self.tearDown()
    }

    private func tearDown() {
        self.agentListeners.close()
        self.refusedAgents.close()
        self.certificate.close()
        self.metricsServer?.close()
        self.metricsServer = nil
        self.control?.close()
        self.housekeeping.close()
        self.review.close()
        self.authenticator.close()
        self.names.close()
    }
}

extension GatewayServer {
    /// What HELLO tells of this program.
    package static let software = "diglett-server/\(Release.version)"
}
