internal import AgentCore
internal import Journal
internal import Logging
internal import Reactor
internal import Settings
internal import Wire

/// Reports registered names in the log, as events, to scripts and in `diglett status`. Checks their backends.
final class NameReports {
    private let loop: EventLoop
    private let log: GatewayLog
    private let printer: EventPrinter
    private let ready: ReadyActions
    /// Answers `diglett status`.
    private let control: AgentControl
    private let backendCheck: BackendCheck
    private let isVersion1: Bool
    private var exposes: [AgentSettings.Expose]

    init(loop: EventLoop, settings: AgentSettings, log: GatewayLog, printer: EventPrinter) {
        self.loop = loop
        self.log = log
        self.printer = printer
        self.control = AgentControl(loop: loop, settings: settings, logger: log.logger)
        self.ready = ReadyActions(loop: loop, settings: settings, log: log.log)
        self.backendCheck = BackendCheck(loop: loop, logger: log.logger)
        self.isVersion1 = settings.version1
        self.exposes = settings.exposes
    }

    /// - Parameter agent: held weakly.
    func start(_ agent: any ReportingAgent) {
        self.ready.begin()
        self.control.open(agent)
    }

    /// Where a name is reachable.
    private enum Place {
        /// Version 1 does not transmit addresses.
        case untold
        case reachable(at: String)
        /// - Parameter line: the log line.
        case unusable(reason: String, line: String)
    }

    /// A name is registered.
    ///
    /// - Parameters:
    ///   - port: the public port, or 0 for none.
    ///   - text: the address that the gateway sent.
    ///   - note: what the gateway adds for the log; nil without such a note.
    ///   - backend: nil if the name has just been removed.
    ///   - isGatewayLocal: whether the gateway is on this machine.
    func registered(
        _ wanted: WantedName, _ port: UInt16, _ text: String, _ note: String?, _ backend: Backend?,
        isGatewayLocal: Bool
    ) {
        guard let expose = self.exposes.first(where: { $0.name == wanted.name }) else { return }
        let port = port == 0 ? nil : port
        let target = expose.backend
        let fields = self.log.about([.name: wanted.name, .port: port, .backend: target.description])
        var address: String?
        var problem: String?
        switch self.place(text, of: wanted, to: target, isGatewayLocal: isGatewayLocal) {
        case .untold:
            self.log.say(
                .info, .milestone,
                "'\(wanted.name)' is registered at \(self.log.gateway), see its log for the public port, and forwards to "
                    + "\(target)", fields)
        case .reachable(let known):
            address = known
            self.log.say(
                .info, .milestone, "'\(wanted.name)' is reachable at \(known) and forwards to \(target)",
                self.log.about([.name: wanted.name, .address: known, .port: port, .backend: target.description]))
        case .unusable(let reason, let line):
            problem = reason
            self.log.say(.warning, .milestone, line, fields)
        }
        if let note {
            self.log.say(.notice, .milestone, "'\(wanted.name)': \(note)", self.log.about([.name: wanted.name]))
        }
        if let backend { self.backendCheck.registered(wanted.name, backend) }
        self.print(
            .registered(
                name: wanted.name.text, address: address, port: port, backend: target.description, problem: problem))
        self.ready.registered(wanted.name, at: address)
        self.control.registered(wanted.name, at: address)
    }

    private func place(_ text: String, of wanted: WantedName, to target: BackendAddress, isGatewayLocal: Bool) -> Place
    {
        if self.isVersion1 { return .untold }
        guard let known = PublicAddress(text) else {
            let sent = text.isEmpty ? "no address" : "'\(text)', which is not \(PublicAddress.form)"
            let reason =
                "the gateway sent \(sent), so the address is unknown; the gateway's operator can set 'public-url'"
            return .unusable(
                reason: reason, line: "'\(wanted.name)' is registered and forwards to \(target), but \(reason)")
        }
        guard known.isLoopback, !isGatewayLocal else { return .reachable(at: known.seen(from: self.log.gateway.host)) }
        let place = "reachable at \(known) on the gateway's machine only"
        let advice = "set 'expose-bind' there to make it public, or 'public-url' if a proxy serves it"
        return .unusable(
            reason: "\(place); \(advice)", line: "'\(wanted.name)' is \(place) and forwards to \(target); \(advice)")
    }

    /// The gateway refused or withdrew a name.
    func missing(_ wanted: WantedName, _ code: ErrorCode, _ text: String) {
        self.log.say(
            .warning, .detail, "'\(wanted.name)' is not reachable: \(text)",
            self.log.about([.name: wanted.name, .code: code]))
        self.control.missing(wanted.name, text)
        self.print(.missing(name: wanted.name.text, code: code.description, message: text))
    }

    /// Replaces the names.
    func changed(to exposes: [AgentSettings.Expose]) {
        self.exposes = exposes
        self.log.log.change(milestones: PeerLog.answers(names: exposes.count))
        self.printer.change(to: exposes, now: self.loop.now)
        self.ready.changed(to: exposes.map(\.name))
        self.control.changed(to: exposes)
    }

    private func print(_ event: AgentEvent) { self.printer.print(event, now: self.loop.now) }

    /// Call it about once a second.
    func tick() { self.ready.tick() }

    func close() {
        self.ready.close()
        self.backendCheck.close()
        self.control.close()
    }
}
