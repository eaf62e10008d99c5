internal import Control
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

/// The gateway's hub: everything that exists once, independent of the number of workers. It listens for agents, manages
/// their logins and names, and starts and stops the rest.
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
    let agents: AgentSessions
    let metrics = GatewayMetrics()
    let settings: GatewaySettings
    private let manager: ServiceManager
    private let state: StateDirectory
    let certificate: CertificateWatch
    let plan: ResourcePlan
    let authenticator: any Authenticator
    let worker: WorkerLine
    let acceptor: AgentAcceptor
    /// When it started running or draining, on the loop's clock.
    private(set) var stateBegan: UInt64
    private(set) var control: GatewayControl?
    private var phase = Phase.running
    private var metricsServer: DocumentServer?
    private let housekeeping: Housekeeping

    /// Does all setup that can fail, except listening.
    ///
    /// - Parameters:
    ///   - manager: nil if no service manager started the gateway.
    ///   - holdMilliseconds: how long listeners of the previous run are held for their agents.
    package init(
        loop: EventLoop, settings: GatewaySettings, logger: Logger, manager: ServiceManager? = nil,
        holdMilliseconds: UInt64 = ListenerStore.holdMilliseconds
    ) throws(GatewayError) {
        self.loop = loop
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
        let sources = SourceRules(trusted: settings.trustedNetworks, proxies: settings.proxies)
        let budget = ByteBudget(limit: self.plan.memory)
        let worker = WorkerLine(loop: loop)
        self.worker = worker
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
                loop: loop, settings: settings, limits: limits, metrics: self.metrics, log: peerLog,
                authenticator: self.authenticator, registrars: drivers,
                listeners: try PublicListeners(
                    hosts: hosts, ports: limits.ports, settings: settings, store: store, registrars: drivers),
                ports: PortStore(loop: loop, path: self.state.file("ports.json"), logger: logger),
                send: { worker.send($0) })
        } catch {
            for registrar in registrars { registrar.close() }
            self.authenticator.close()
            throw GatewayError(.state, error.description)
        }
        self.agents = AgentSessions(
            .init(
                loop: loop, limits: settings.limits, plan: self.plan, sources: sources, names: self.names,
                authenticator: self.authenticator, metrics: self.metrics, log: peerLog, budget: budget,
                send: { worker.send($0) }))
        self.names.sessions = self.agents
        self.acceptor = AgentAcceptor(
            AgentListeners(loop: loop, logger: logger, settings: settings), agents: self.agents)
        worker.connect(
            Worker(
                loop: loop, settings: WorkerSettings(settings, self.plan, sources), budget: budget, log: peerLog,
                send: { worker.report($0) })
        ) { [weak self] in self?.received($0) }
        self.certificate.onChange = { worker.send(.identify($0)) }
        worker.send(.identify(self.certificate.identity.pem))
    }

    // MARK: - Start

    /// Starts listening. Run the loop afterwards.
    package func start() throws(GatewayError) {
        // First of all: a program that waits for the first log line may send a signal at once.
        self.housekeeping.start(self)
        do throws(GatewayError) {
            if let metrics = self.settings.metrics { self.metricsServer = try MetricsListener.open(metrics, self) }
            try self.acceptor.listeners.open(self.acceptor, inherited: self.manager.sockets)
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
                "expose-bind: this machine does not have the address \(address.host); names wait until it has it")
        }
        self.certificate.start()
        self.names.start()
        self.authenticator.onChange { [weak self] in
            self?.agents.recheckRights()
        }
        self.housekeeping.started()
    }

    // MARK: - Reports from the worker

    private func received(_ report: WorkerReport) {
        switch report {
        case .isRemote(let id): self.agents[id]?.isFromLoopback = false
        case .introduced(let id, let address): self.with(id) { self.agents.introduced($0, address) }
        case .greeted(let id): self.with(id) { self.agents.greeted($0) }
        case .secured(let id, let pin): self.with(id) { self.agents.secured($0, pin: pin) }
        case .login(let id, let credentials): self.with(id) { self.agents.loginArrived($0, credentials) }
        case .detached(let id, let end): self.with(id) { self.agents.detached($0, end) }
        case .resumed(let id, let greeter):
            if let session = self.agents[id], let greeter = self.agents[greeter] {
                self.agents.resumed(session, on: greeter)
            }
        case .notProven(let id): self.with(id) { self.agents.notProven($0) }
        case .register(let id, let register): self.names.register(id, register)
        case .unregister(let id, let number): self.names.unregister(id, number: number)
        case .notOpened(let name):
            self.names.revoke(name, .registrarFailed, reason: "its listener is unusable")
        case .probed(let name, let id): self.names.probed(name, over: id)
        case .saidGoodbye(let id, let code): self.with(id) { self.agents.saidGoodbye($0, code) }
        case .wornOut(let id): self.names.linkIsDraining(id)
        case .ending(let id): self.with(id) { self.agents.ending($0) }
        case .ended(let id, let end): self.with(id) { self.agents.ended($0, end) }
        case .emptied(let id):
            self.agents.emptied(id)
            self.finishIfEmpty()
        case .news(let news): self.control?.tell(news)
        case .streams(let count): self.streamCount = count
        case .answer(let number, let answer): self.worker.answered(number, answer)
        }
    }

    private func with(_ id: LinkID, _ body: (AgentSession) -> Void) {
        if let session = self.agents[id] { body(session) }
    }

    // MARK: - Health

    /// Whether the gateway is healthy. While running, this means that agents can connect.
    package func isWell(onTime: Bool) -> Bool {
        switch self.phase {
        case .running: onTime && self.acceptor.listeners.areOpen
        case .draining: onTime
        case .stopped: true
        }
    }

    /// The addresses of the listeners for agents.
    package var agentAddresses: [SocketAddress] { self.acceptor.listeners.addresses(isVersion1: false) }
    /// The same for agents of version 1.
    package var version1Addresses: [SocketAddress] { self.acceptor.listeners.addresses(isVersion1: true) }

    /// Streams of all links, up to about a second old.
    private(set) var streamCount = 0

    var isDraining: Bool {
        if case .running = self.phase { false } else { true }
    }

    // MARK: - Operator commands

    package func hungUp() {
        self.logger.info("SIGHUP: reloading agents and certificate")
        self.reload()
    }

    /// Reloads the agents' rights and the certificate, and has the registrars check their names. While draining,
    /// reloads only the rights.
    package func reload() {
        // Not through the manager, which would report a draining gateway as ready again.
        guard !self.isDraining else { return self.authenticator.reload() }
        self.manager.reloading {
            self.authenticator.reload()
            self.certificate.reload()
            self.names.registrars.reconcile()
        }
    }

    // MARK: - Housekeeping and shutdown

    package func tick(slept: Bool) {
        self.metrics.ticked(now: self.loop.now, period: Housekeeping.period)
        if slept { self.logger.info("the machine slept; checking all links") }
        self.worker.send(.tick(slept: slept))
        self.names.tick()
        self.agents.tick()
        self.acceptor.tick()
        self.peerLog.tick()
        if case .draining(let until) = self.phase, self.loop.now >= until {
            self.logger.warning("cutting the streams that have not finished in time")
            self.worker.send(.cutAll)
        }
    }

    static func waiting(streams: Int) -> String {
        Draining.text(streams: streams, atMostSeconds: Self.drainMilliseconds / 1_000)
    }

    /// Stops gracefully: refuses new agents and visitors, and waits for open streams. A second call cuts them.
    package func stop() {
        switch self.phase {
        case .running:
            self.phase = .draining(until: self.loop.now + Self.drainMilliseconds)
            self.stateBegan = self.loop.now
            self.names.willStop()
            if self.agents.isEmpty {
                self.announceEnd(streams: 0)
            } else {
                self.worker.census { [weak self] in self?.announceEnd(streams: $0.streamCount) }
            }
            self.acceptor.close()
            self.agents.drain()
            self.finishIfEmpty()
        case .draining: self.worker.send(.cutAll)
        case .stopped: break
        }
    }

    private func announceEnd(streams: Int) {
        self.streamCount = streams
        self.manager.stopping(status: self.status)
        guard streams > 0 else { return }
        self.logger.info("stopping: \(Self.waiting(streams: streams))")
    }

    /// Tears down when draining and no session is left.
    private func finishIfEmpty() {
        guard case .draining = self.phase, self.agents.isEmpty else { return }
        self.phase = .stopped
        self.tearDown()
    }

    private func tearDown() {
        self.acceptor.close()
        self.acceptor.closeRefused()
        self.certificate.close()
        self.metricsServer?.close()
        self.metricsServer = nil
        self.control?.close()
        self.housekeeping.close()
        self.agents.close()
        self.authenticator.close()
        self.names.close()
        self.worker.send(.shutDown)
    }
}

extension GatewayServer {
    /// Sent in HELLO, and as the user agent of web requests.
    package static let software = "diglett-server/\(Release.version)"
}
