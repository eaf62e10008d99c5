package import AgentCore
internal import Journal
package import Logging
package import Reactor
internal import Relay
internal import Secure
package import Settings
package import Supervision
internal import Timing
internal import Tunnel
internal import Wire

/// Asks the person at the terminal; nil when there is none.
package typealias Question = (_ text: String) -> Bool

/// The agent: dials the gateway, registers names, connects backends, comes back when a link is lost.
package final class AgentProgram: HousekeptProgram {
    private enum Ending {
        case running
        /// Asked to stop: running streams may finish until then, nothing new is begun.
        case draining(until: UInt64)
        /// The last words are on their way.
        case stopped
    }

    private static let drainMilliseconds: UInt64 = 30_000
    /// For files, the loop and links.
    private static let ownDescriptors = 64
    /// Bytes that may wait in all links: those of eight links, as one may follow the other before that has emptied.
    private static let memory = 256 * 1024 * 1024

    let loop: EventLoop
    var settings: AgentSettings
    let logger: Logger
    /// For every line that the gateway or a visitor can cause.
    let log: PeerLog
    let printer: EventPrinter
    let ready: ReadyActions
    let backendCheck: BackendCheck
    private(set) var control: AgentControl?
    private let manager: ServiceManager
    let keys: KeyCheck
    private let version: LinkProtocol
    private let buffers = RelayBuffers()
    private let budget: ByteBudget
    private let linkLimits: LinkLimits
    let login: AgentLogin
    var backends: [Name: Backend]
    private let state: StateDirectory
    var machine: AgentMachine
    /// While a link is being made.
    var race: LinkRace?
    /// The link that is used.
    var session: GatewaySession?
    /// Links that only finish their streams.
    var leaving: [GatewaySession] = []
    /// Links that are over, whose backends still get what came before.
    var delivering: [GatewaySession] = []
    /// Addresses of the gateway that took a connection and then said nothing: they are tried last.
    var silentAddresses: Set<SocketAddress> = []
    var segment: SegmentChoice
    private var retryTimer: LoopTimer?
    private let housekeeping: Housekeeping
    /// Reads the settings again; nil where nothing can be read.
    let reread: (() throws(SettingsErrors) -> AgentSettings)?
    let streamLog: StreamLog
    private var ending = Ending.running
    var keyRefusal: KeyCheck.Refusal?
    /// Whether the silence of an address was logged since the last link.
    var hasReportedSilence = false
    /// Why the program ended.
    package private(set) var exit = ExitReason.stopped

    /// - Parameters:
    ///   - ask: how to ask about an unknown key; nil without a terminal.
    ///   - manager: nil: nobody started us who wants to hear of it.
    ///   - reread: reads the settings again, for SIGHUP.
    package init(
        loop: EventLoop, settings: AgentSettings, logger: Logger, ask: Question?, manager: ServiceManager? = nil,
        reread: (() throws(SettingsErrors) -> AgentSettings)? = nil
    ) throws(SettingsError) {
        self.reread = reread
        self.loop = loop
        self.settings = settings
        self.segment = SegmentChoice(configured: settings.linkMSS)
        self.logger = logger
        self.log = PeerLog(logger, loop: loop, milestones: PeerLog.answers(names: settings.exposes.count))
        let manager = manager ?? .absent(loop: loop, logger: logger)
        self.manager = manager
        self.housekeeping = Housekeeping(loop: loop, manager: manager, logger: logger)
        self.printer = EventPrinter(
            format: settings.output, names: settings.exposes.count, now: loop.now)
        self.ready = ReadyActions(loop: loop, settings: settings, log: self.log)
        self.backendCheck = BackendCheck(loop: loop, logger: logger)
        self.state = try StateDirectory(path: settings.stateDirectory)
        self.keys = KeyCheck(settings: settings, state: self.state, logger: logger, ask: ask)
        let credentials = try AgentCredentials(settings: settings, state: self.state)
        self.version = credentials.version
        self.login = AgentLogin(loop: loop, settings: settings, login: credentials.login, logger: logger)
        // Each stream is a connection to a backend.
        let descriptors = DescriptorLimit.raise() - Self.ownDescriptors
        self.backends = Dictionary(uniqueKeysWithValues: settings.exposes.map { ($0.name, Backend($0)) })
        self.machine = AgentMachine(
            wishes: settings.exposes.map { Wish(name: $0.name, port: $0.port) }, once: settings.once)
        loop.names.giveOwnLane(to: settings.gateway.host)
        self.budget = ByteBudget(limit: Self.memory)
        self.linkLimits = LinkLimits(
            streams: max(min(settings.limits.streamsPerLink, descriptors), 1), stalled: settings.limits.stallTimeout,
            halfClosedIdle: settings.limits.halfCloseTimeout)
        self.streamLog = StreamLog(log: self.log, settings: settings)
    }

    /// Starts dialling. Afterwards run the loop.
    package func start() {
        self.housekeeping.start(self)
        self.ready.begin()
        self.retryTimer = LoopTimer(loop: self.loop) { [unowned self] in self.perform(self.machine.timerFired()) }
        if self.settings.version1 {
            self.logger.warning(
                """
                version 1: whoever is between here and the gateway can read and change everything, the token included; \
                use it through a tunnel of its own, or move the gateway to version 2
                """)
        }
        let control = AgentControl(loop: self.loop, settings: self.settings, logger: self.logger) { [unowned self] in
            (self.status, self.session?.link.phase == .up, self.streamCount)
        }
        control.open()
        self.control = control
        self.perform(self.machine.started())
        // Whatever waits for this service at the boot must not wait for a gateway that is away.
        self.housekeeping.started()
    }

    package var status: String {
        let streams = self.hasStopped || self.isDraining ? self.streamCount : nil
        return AgentStatus(gateway: self.settings.gateway, progress: self.machine.progress, draining: streams)
            .description
    }

    package func isWell(onTime: Bool) -> Bool { self.hasStopped || onTime }

    package func hungUp() {
        self.manager.reloading { self.reload() }
    }

    // MARK: - Performing what the machine asks for

    func perform(_ action: AgentMachine.Action) {
        switch action {
        case .none: break
        case .dial: self.dial()
        case .wait(let milliseconds):
            self.print(.retrying(seconds: Double(milliseconds) / 1_000))
            self.retryTimer?.start(after: milliseconds)
        case .register(let requests): self.session?.register(requests)
        case .unregister(let exposures): self.session?.unregister(exposures)
        case .announce(let wish, let port, let address): self.announce(wish, port, address)
        case .missing(let wish, let code, let text):
            self.say(
                .warning, .detail, "'\(wish.name)' is not reachable: \(text)",
                self.about([.name: wish.name, .code: code]))
            self.control?.missing(wish.name, text)
            self.print(.missing(name: wish.name.text, code: code.description, message: text))
        case .stop(let reason, let text): self.stop(reason, text)
        }
    }

    /// Tenths below ten seconds, rounded up: no wait is 0.
    private static func seconds(_ milliseconds: UInt64) -> String {
        let tenths = (milliseconds + 99) / 100
        return tenths < 100 ? "\(tenths / 10).\(tenths % 10) s" : "\((milliseconds + 999) / 1_000) s"
    }

    private func dial() {
        let gateway = self.settings.gateway
        self.say(.debug, .milestone, "connecting to \(gateway)")
        self.keyRefusal = nil
        var plan = Connector.Plan()
        plan.avoided = self.silentAddresses
        plan.largestSegment = self.segment.largest
        self.race = LinkRace(loop: self.loop, to: .host(gateway.host, port: gateway.port), plan: plan) {
            [unowned self] (socket) throws(SecurityError) in
            try self.begin(socket)
        } silent: { [unowned self] address in
            self.reportSilence(of: address)
        } failed: { [unowned self] failure in
            self.race = nil
            switch failure {
            case .unreachable(let error):
                self.dialFailed("cannot reach the gateway \(gateway): \(DialAdvice.text(error))")
            case .unusable(let error): self.dialFailed("\(error)")
            case .ended(let end):
                self.lost(end.description, line: "no link to the gateway \(gateway): \(DialAdvice.text(end))")
            }
        }
    }

    private func dialFailed(_ text: String) {
        self.segment.failed()
        self.retry(self.machine.dialFailed(text, now: self.loop.now, random: SecureRandom.integer()), after: text)
    }

    /// Says what went wrong, once: the end of the program says it by itself.
    func retry(_ action: AgentMachine.Action, after text: String) {
        // The waits between them keep these lines few, whatever the gateway does.
        if case .wait(let milliseconds) = action {
            self.logger.warning("\(text); retrying in \(Self.seconds(milliseconds))", metadata: self.about([:]))
        }
        self.perform(action)
    }

    private func begin(_ socket: SocketStream) throws(SecurityError) -> GatewaySession {
        self.machine.connected()
        let transport = try LinkTransport(
            socket: socket, version: self.version, role: .agent, handshakeDeadline: self.linkLimits.handshakeDeadline,
            budget: self.budget, buffers: self.buffers)
        let link = LinkSession(
            transport: transport, limits: self.linkLimits, budget: self.budget, software: Self.software)
        let session = GatewaySession(link: link, owner: self, logger: self.logger)
        link.start()
        return session
    }

    /// No link is made any more; what was connected for it is closed.
    private func cancelRace(_ text: String) {
        self.leave(self.race?.sessions ?? [], text)
        self.race?.cancel()
        self.race = nil
    }

    /// Ends sessions that are not or no longer the link.
    func leave(_ sessions: [GatewaySession], _ text: String) {
        self.leaving += sessions
        for session in sessions { session.link.end(.none, text: text) }
    }

    // MARK: - Time and the end

    package func tick(slept: Bool) {
        for session in self.sessions {
            if slept { session.link.clockJumped() }
            session.link.tick()
        }
        for session in self.leaving where session.link.streamCount == 0 {
            session.link.end(.none, text: "done")
        }
        for action in self.machine.tick(now: self.loop.now) { self.perform(action) }
        self.printer.tick(now: self.loop.now)
        self.log.tick()
        self.ready.tick()
        if case .draining(let until) = self.ending { self.finishIfDone(force: self.loop.now >= until) }
    }

    /// Ends: the first request lets running streams finish, the second cuts them.
    package func stop() {
        switch self.ending {
        case .running: self.drain()
        case .draining: self.finishIfDone(force: true)
        case .stopped:
            // Whoever asks again does not want to wait for goodbyes either.
            for session in self.sessions { session.link.close(.ended(.none, "the agent stops")) }
            for session in self.delivering { session.link.cutDeliveries() }
        }
    }

    private func drain() {
        let streams = self.streamCount
        guard streams > 0 else { return self.perform(self.machine.stopRequested()) }
        let (done, them) = streams == 1 ? ("is done", "it") : ("are done", "them")
        self.logger.info("stopping when \(counted(streams, "stream")) \(done); a second signal cuts \(them)")
        self.ending = .draining(until: self.loop.now + Self.drainMilliseconds)
        self.manager.stopping(status: self.status)
        // No next link: the streams of a former one are all that is waited for.
        self.cancelRace("the agent stops")
        self.retryTimer?.stop()
        if let session = self.session, !session.link.phase.isPastLogin {
            session.link.end(.none, text: "the agent stops")
        }
        self.session?.link.drain(text: "the agent stops")
    }

    /// Whether the gateway is on this machine, as far as the link can tell.
    var isGatewayLocal: Bool { self.session?.link.transport.isLocal ?? false }

    /// The present link's or those that may become it, and those that only finish their streams.
    private var sessions: [GatewaySession] {
        self.leaving + (self.session.map { [$0] } ?? []) + (self.race?.sessions ?? [])
    }

    private var streamCount: Int {
        (self.sessions + self.delivering).reduce(0) { $0 + $1.link.streamCount }
    }

    var isDraining: Bool {
        if case .draining = self.ending { true } else { false }
    }

    var hasStopped: Bool {
        if case .stopped = self.ending { true } else { false }
    }

    private func finishIfDone(force: Bool) {
        guard self.isDraining, force || self.streamCount == 0 else { return }
        self.perform(self.machine.stopRequested())
    }

    private func stop(_ reason: ExitReason, _ text: String) {
        guard !self.hasStopped else { return }
        let isNews = !self.isDraining
        self.ending = .stopped
        if isNews { self.manager.stopping(status: reason == .stopped ? "stopping" : text) }
        self.exit = reason
        self.ready.close()
        self.backendCheck.close()
        self.control?.close()
        self.login.close()
        if reason != .stopped {
            self.logger.error(
                "\(text) (diglett explain \(reason.rawValue))",
                metadata: self.about([.code: reason.slug, .exit: reason.rawValue]))
            self.print(.refused(code: reason.slug, message: text, exit: reason.rawValue))
        }
        self.cancelRace("the agent stops")
        for session in self.sessions { session.link.end(.none, text: "the agent stops") }
        // Unless the user stops the agent, backends still receive the bytes that arrived before the link was lost.
        if reason == .stopped { for session in self.delivering { session.link.cutDeliveries() } }
        self.closeIfQuiet()
    }

    /// Closes what keeps the loop alive once the last link is gone; until then ticks end the lingering.
    func closeIfQuiet() {
        guard self.hasStopped, self.session == nil, self.leaving.isEmpty, self.delivering.isEmpty else { return }
        self.housekeeping.close()
        self.retryTimer?.close()
        self.retryTimer = nil
        self.printer.flush()
        // A name resolution that still runs would keep the loop going.
        self.loop.stop()
    }

    /// What HELLO tells of this program.
    package static let software = "diglett/\(Release.version)"
}

extension AgentProgram: TurnEndHandler {
    package func turnDidEnd() { self.finishIfDone(force: false) }
}
