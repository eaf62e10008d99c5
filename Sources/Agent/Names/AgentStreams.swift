internal import Journal
internal import Reactor
internal import Relay
internal import Settings
internal import Wire

/// Maps exposures to names.
protocol AgentStreamsOwner: AnyObject {
    /// Returns nil if the current link does not have the exposure.
    func name(of exposure: UInt16) -> Name?
    /// A stream has ended. Called while its link processes input: do not end the link from here.
    func streamEnded()
}

/// Connects streams to backends by name, and logs streams.
final class AgentStreams {
    private let loop: EventLoop
    private let log: StreamLog
    private let printer: EventPrinter
    private let tellsOpened: Bool
    private var backends: [Name: Backend]
    private weak var owner: (any AgentStreamsOwner)?

    init(loop: EventLoop, settings: AgentSettings, log: GatewayLog, printer: EventPrinter) {
        self.loop = loop
        self.log = StreamLog(log: log.log, settings: settings)
        self.printer = printer
        self.tellsOpened = settings.debug > 0
        self.backends = Dictionary(uniqueKeysWithValues: settings.exposes.map { ($0.name, Backend($0)) })
    }

    /// - Parameter owner: held weakly.
    func start(_ owner: any AgentStreamsOwner) { self.owner = owner }

    func backend(of name: Name) -> Backend? { self.backends[name] }

    /// Replaces the backends of new and changed names. Open streams keep theirs.
    func changed(from former: [AgentSettings.Expose], to wanted: [AgentSettings.Expose]) {
        for expose in former {
            if !wanted.contains(where: { $0.name == expose.name }) { self.backends[expose.name] = nil }
        }
        for expose in wanted where !former.contains(expose) { self.backends[expose.name] = Backend(expose) }
    }
}

extension AgentStreams: GatewayStreams {
    func backend(of exposure: UInt16) -> Backend? { self.owner?.name(of: exposure).flatMap { self.backends[$0] } }

    private func text(of exposure: UInt16) -> String { self.owner?.name(of: exposure)?.text ?? "?" }

    func opened(_ open: Open) {
        guard self.tellsOpened || self.printer.isView else { return }
        let name = self.text(of: open.exposure)
        if self.tellsOpened { self.log.opened(name, open.visitor) }
        // The gateway's probes have no visitor.
        guard self.tellsOpened || open.visitor != .none && self.printer.awaitsVisitor(of: name) else { return }
        self.printer.print(.stream(name: name, visitor: open.visitor.description), now: self.loop.now)
    }

    func failed(_ open: Open, _ backend: Backend, _ error: UVError) {
        guard let name = self.owner?.name(of: open.exposure) else { return }
        self.log.backendFailed(name.text, open.visitor, backend.endpoint, error)
    }

    func ended(_ edge: Edge, _ end: StreamEnd, link: LinkEnd?) {
        self.log.ended(
            edge, end, self.text(of: edge.exposure), self.backend(of: edge.exposure)?.endpoint, link: link)
        self.owner?.streamEnded()
    }
}
