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

/// Asks the user a question at the terminal. Returns true for yes.
package typealias Question = (_ text: String) -> Bool

/// The agent: dials the gateway, registers names, connects backends, and reconnects when a link is lost.
package final class AgentProgram: HousekeptProgram {
    private enum Ending {
        case running
        /// Stopping on request. Open streams may finish until then; nothing new starts.
        case draining(until: UInt64)
        /// The last GOAWAY is being sent.
        case stopped
    }

    private static let drainMilliseconds: UInt64 = 30_000
    /// Descriptors for files, the loop and links.
    private static let ownDescriptors = 64
    /// Bytes that may wait in all links: those of eight links, because a new link may start before the last one is
    /// empty.
    private static let memory = 256 * 1024 * 1024

    let loop: EventLoop
    var settings: AgentSettings
    let log: GatewayLog
    var logger: Logger { self.log.logger }
    let printer: EventPrinter
    private let manager: ServiceManager
    let housekeeping: Housekeeping
    let keys: KeyCheck
    let login: AgentLogin
    var machine: AgentMachine
    /// Nil if the system does not allow it.
    private var networkWatch: NetworkWatch?
    /// Fires at the machine's next deadline.
    var timer: LoopTimer?
    /// The timer must be set at the end of the turn.
    private var isTimerDue = false
    let links: AgentLinks
    let streams: AgentStreams
    let names: NameReports
    /// Reads the settings again; nil if there is nothing to read.
    let reread: (() throws(SettingsErrors) -> AgentSettings)?
    private var ending = Ending.running
    var keyRefusal: KeyCheck.Refusal?
    /// Why the program exited.
    package private(set) var exit = ExitReason.stopped

    /// - Parameters:
    ///   - ask: asks about an unknown key; nil without a terminal.
    ///   - manager: nil without a service manager.
    ///   - events: the output for events.
    ///   - isWatched: whether a person at a terminal reads the events, in colour.
    ///   - reread: reads the settings again, for SIGHUP.
    package init(
        loop: EventLoop, settings: AgentSettings, logger: Logger, ask: Question?, manager: ServiceManager? = nil,
        events: PatientWriter = .standardOutput, isWatched: Bool = false,
        reread: (() throws(SettingsErrors) -> AgentSettings)? = nil
    ) throws(SettingsError) {
        self.reread = reread
        self.loop = loop
        self.settings = settings
        self.log = GatewayLog(
            log: PeerLog(logger, loop: loop, milestones: PeerLog.answers(names: settings.exposes.count)),
            gateway: settings.gateway)
        let manager = manager ?? .absent(loop: loop, logger: logger)
        self.manager = manager
        self.housekeeping = Housekeeping(loop: loop, manager: manager, logger: logger)
        self.printer = EventPrinter(
            form: Self.form(settings, isWatched: isWatched), names: settings.exposes.count, now: loop.now,
            writer: events)
        let state = try StateDirectory(path: settings.stateDirectory)
        self.keys = KeyCheck(settings: settings, state: state, logger: logger, ask: ask)
        let credentials = try AgentCredentials(settings: settings, state: state)
        self.login = AgentLogin(loop: loop, settings: settings, login: credentials.login, logger: logger)
        self.machine = AgentMachine(
            wantedNames: settings.exposes.map { WantedName(name: $0.name, port: $0.port) }, once: settings.once)
        loop.names.giveOwnLane(to: settings.gateway.host)
        // Each stream needs a descriptor for its backend.
        let descriptors = DescriptorLimit.raise() - Self.ownDescriptors
        let limits = LinkLimits(
            streams: max(min(settings.limits.streamsPerLink, descriptors), 1), stalled: settings.limits.stallTimeout,
            halfClosedIdle: settings.limits.halfCloseTimeout,
            // An agent that exits when it loses the gateway resumes nothing.
            resumeWindow: settings.once ? 0 : settings.limits.resumeWindow, maxKept: settings.limits.resumeMemory)
        self.streams = AgentStreams(loop: loop, settings: settings, log: self.log, printer: self.printer)
        self.links = AgentLinks(
            loop: loop, settings: settings, version: credentials.version, limits: limits,
            budget: ByteBudget(limit: Self.memory), log: self.log, streams: self.streams)
        self.names = NameReports(loop: loop, settings: settings, log: self.log, printer: self.printer)
    }

    private static func form(_ settings: AgentSettings, isWatched: Bool) -> EventPrinter.Form {
        if settings.output == .json { return .json }
        guard isWatched else { return .lines }
        return .view(TerminalView(names: settings.exposes.map { ($0.name.text, $0.backend.description) }))
    }

    /// Starts dialling. Run the loop afterwards.
    package func start() {
        self.housekeeping.start(self)
        self.streams.start(self)
        self.names.start(self)
        self.timer = LoopTimer(loop: self.loop) { [unowned self] in
            self.perform(self.machine.deadlineReached(now: self.loop.now))
        }
        if self.settings.version1 {
            self.logger.warning(
                """
                version 1 is neither authenticated nor safe from eavesdropping: anyone on the network path can read and \
                change everything, the token included; use it through another tunnel, or move the gateway to version 2
                """)
        }
        do throws(UVError) {
            self.networkWatch = try NetworkWatch(loop: self.loop) { [unowned self] in self.networkChanged() }
        } catch {
            self.logger.debug("changes of the network are not watched: \(error)")
        }
        self.perform(self.machine.started())
        // Report readiness without a gateway: units that start after this one must not wait for it.
        self.housekeeping.started()
    }

    package func isWell(onTime: Bool) -> Bool { self.hasStopped || onTime }

    package func hungUp() {
        self.manager.reloading { self.reload() }
    }

    // MARK: - Performing the machine's actions

    func perform(_ action: AgentMachine.Action) { self.perform([action]) }

    /// Call it with the result of every call to the machine, even an empty one, because the next deadline may have
    /// changed.
    func perform(_ actions: [AgentMachine.Action]) {
        for action in actions { self.performOne(action) }
        guard !self.isTimerDue else { return }
        self.isTimerDue = true
        self.loop.atTurnEnd(self)
    }

    private func performOne(_ action: AgentMachine.Action) {
        switch action {
        case .none: break
        case .dial:
            self.log.say(.debug, .milestone, "connecting to \(self.settings.gateway)")
            self.keyRefusal = nil
            self.links.dial(self)
        case .wait(let milliseconds):
            // A link whose connection is being replaced still has its connection.
            guard !self.links.isUp else { break }
            self.print(.retrying(seconds: Double(milliseconds) / 1_000))
        case .register(let requests): self.links.register(requests)
        case .unregister(let exposures): self.links.unregister(exposures)
        case .announce(let wanted, let port, let address, let note):
            self.names.registered(
                wanted, port, address, note, self.streams.backend(of: wanted.name),
                isGatewayLocal: self.links.isGatewayLocal)
        case .missing(let wanted, let code, let text): self.names.missing(wanted, code, text)
        case .stop(let reason, let text): self.stop(reason, text)
        }
    }

    private func setTimer() {
        guard self.isTimerDue else { return }
        self.isTimerDue = false
        guard !self.isDraining, !self.hasStopped, let deadline = self.machine.nextDeadline else {
            self.timer?.stop()
            return
        }
        self.timer?.start(after: deadline - min(deadline, self.loop.now))
    }

    /// Logs the failure if the agent retries. If it exits instead, `stop` logs the reason.
    func retry(_ action: AgentMachine.Action, after text: String) {
        // The machine's waits limit the rate of these lines.
        if case .wait(let milliseconds) = action {
            self.logger.warning("\(text); retrying in \(Self.seconds(milliseconds))", metadata: self.log.about())
        }
        self.perform(action)
    }

    /// In tenths below ten seconds. Rounded up, so no wait is shown as 0.
    static func seconds(_ milliseconds: UInt64) -> String {
        let tenths = (milliseconds + 99) / 100
        return tenths < 100 ? "\(tenths / 10).\(tenths % 10) s" : "\((milliseconds + 999) / 1_000) s"
    }

    /// - Parameter line: the log line; nil: a line made from the reason.
    func lost(_ reason: String, line: String? = nil) {
        guard !self.hasStopped else { return }
        if self.isDraining { return self.loop.atTurnEnd(self) }
        self.print(.lost(reason: reason))
        self.machine.linkForgotten()
        let text = line ?? "lost the link to \(self.settings.gateway): \(reason)"
        self.retry(self.machine.linkEnded(text, now: self.loop.now, random: SecureRandom.integer()), after: text)
    }

    func print(_ event: AgentEvent) { self.printer.print(event, now: self.loop.now) }

    // MARK: - Ticks and shutdown

    package func tick(slept: Bool) {
        self.links.tick(slept: slept)
        if slept { self.networkChanged() }
        self.printer.tick(now: self.loop.now)
        self.log.log.tick()
        self.names.tick()
        if case .draining(let until) = self.ending { self.finishIfDone(force: self.loop.now >= until) }
    }

    /// Stops the agent. The first call lets open streams finish, the second cuts them.
    package func stop() {
        switch self.ending {
        case .running: self.drain()
        case .draining: self.finishIfDone(force: true)
        // A further call skips the GOAWAY exchange.
        case .stopped: self.links.close("the agent is stopping")
        }
    }

    private func drain() {
        let streams = self.streamCount
        guard streams > 0 else { return self.perform(self.machine.stopRequested()) }
        self.logger.notice(
            "stopping: \(Draining.text(streams: streams, atMostSeconds: Self.drainMilliseconds / 1_000))")
        self.ending = .draining(until: self.loop.now + Self.drainMilliseconds)
        self.manager.stopping(status: self.status)
        // Dial no more: only the streams of existing links are left.
        self.timer?.stop()
        self.links.drain("the agent is stopping")
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
        self.names.close()
        self.login.close()
        self.networkWatch?.close()
        self.networkWatch = nil
        if reason != .stopped {
            self.logger.error(
                "\(text) (diglett explain \(reason.rawValue))",
                metadata: self.log.about([.code: reason.slug, .exit: reason.rawValue]))
            self.print(.refused(code: reason.slug, message: text, exit: reason.rawValue))
        }
        // Bytes that arrived before the link was lost still reach the backends, unless the user stops the agent.
        self.links.end("the agent is stopping", cutsDeliveries: reason == .stopped)
        self.calmed()
    }

    /// The program's name and version, sent in HELLO.
    package static let software = "diglett/\(Release.version)"
}

extension AgentProgram: TurnEndHandler {
    package func turnDidEnd() {
        self.finishIfDone(force: false)
        self.setTimer()
    }
}

extension AgentProgram: ReportingAgent {
    package var status: String {
        let streams = self.hasStopped || self.isDraining ? self.streamCount : nil
        return AgentStatus(gateway: self.settings.gateway, progress: self.machine.progress, draining: streams)
            .description
    }

    var isConnected: Bool { self.links.isUp }

    var streamCount: Int { self.links.streamCount }
}

extension AgentProgram: AgentStreamsOwner {
    func name(of exposure: UInt16) -> Name? { self.machine.wanted(of: exposure)?.name }

    func streamEnded() {
        if self.isDraining { self.loop.atTurnEnd(self) }
    }
}
