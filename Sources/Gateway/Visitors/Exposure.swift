internal import GatewayCore
internal import Journal
internal import Logging
internal import Modules
internal import Reactor
internal import Relay
internal import Tunnel
internal import Wire

/// A registered name with its public listeners.
///
/// It belongs to one session at a time; when the same agent comes back on another link, the exposure moves there with
/// its listeners open, so that no visitor is refused in between.
final class Exposure {
    private enum Waiting {
        /// Nothing was looked at yet.
        case new(SocketStream, SocketListener)
        /// It has a place in the ``VisitorTable``.
        case admitted(Visitor, SocketStream)
    }

    let id: ExposureID
    let name: Name
    let identity: AgentIdentity
    /// See ``GatewayMachine/Login/payer``; also after the end of the session.
    private let payer: String
    let listeners: NameListeners
    /// The agent's number for it on its present link.
    private(set) var number: UInt16 = 0
    private(set) weak var session: AgentSession?
    private unowned let gateway: GatewayServer
    /// Nil until the first connection from a trusted proxy.
    private var entrance: ProxyEntrance?
    /// Visitors that were accepted while the agent could not take another one. Their listeners are paused then.
    private var waiting: [Waiting] = []
    private(set) var isPublished = false
    let meter = NameMeter()
    let since: UInt64

    /// It has no session until it is attached to one.
    init(
        _ id: ExposureID, _ request: PortRequest, _ listeners: NameListeners, gateway: GatewayServer
    ) {
        self.id = id
        self.name = request.name
        self.identity = request.identity
        self.payer = request.payer
        self.listeners = listeners
        self.gateway = gateway
        self.since = gateway.loop.now
        listeners.setDelegate(self)
        // Visitors wait in the backlog until the registrars have published the name.
        listeners.pause()
    }

    /// Nil when the name has a unix socket only.
    var address: SocketAddress? { self.listeners.address }

    var asPublic: PublicExposure {
        PublicExposure(
            name: self.name, identity: self.identity.id, payer: self.payer, peer: self.session?.peer,
            address: self.address, socket: self.listeners.socket)
    }

    /// What a line about a visitor is about.
    ///
    /// - Parameter proxy: that of a visitor who is not known yet.
    private func about(_ visitor: Visitor?, proxy: Origin? = nil, error: UVError? = nil) -> Logger.Metadata {
        var metadata = self.session?.about([:]) ?? [:]
        metadata.add([
            .name: self.name, .visitor: visitor?.address, .proxy: visitor?.proxy ?? proxy, .error: error,
        ])
        return metadata
    }

    /// Writes a line that visitors have caused.
    func log(_ message: @autoclosure () -> String, _ visitor: Visitor?, proxy: Origin? = nil, error: UVError? = nil) {
        self.gateway.peerLog.write(
            .info, .visitors, of: .visitors(of: self.name.text), message(),
            self.about(visitor, proxy: proxy, error: error))
    }

    /// Its visitors go to this session from now on.
    func attach(to session: AgentSession, number: UInt16) {
        self.session = session
        self.number = number
    }

    /// Visitors may come.
    func published() {
        self.isPublished = true
        self.resume()
    }

    /// Leaves visitors in the backlog.
    func pause() { self.listeners.pause() }

    /// Why the agent cannot take another visitor now; nil when it can.
    private var obstacle: OpenObstacle? {
        self.session.map { $0.link.obstacle(toOpening: self.number) } ?? .notUp
    }

    /// Whether the agent can take another visitor now.
    var hasRoom: Bool { self.obstacle == nil }

    /// Leaves visitors in the backlog while the agent cannot take another one.
    func pauseWithoutRoom() {
        guard let obstacle = self.obstacle else { return }
        // A link that drains, or an agent that does not read, has met no limit on pending opens.
        if obstacle == .pendingOpens { self.gateway.metrics.hit(.pendingOpens) }
        self.pause()
    }

    /// Lets visitors in again that were left in the backlog.
    func resume() {
        guard self.isPublished else { return }
        self.entrance?.letIn()
        // Each once: who has to go on waiting is appended again.
        for _ in 0..<self.waiting.count where self.hasRoom {
            switch self.waiting.removeFirst() {
            case .new(let stream, let listener): self.arrived(stream, at: listener)
            case .admitted(let visitor, let stream): self.enter(visitor, stream)
            }
        }
        self.listeners.resume { self.hasRoom && self.waiting.isEmpty }
    }

    /// Looks at the deadlines; call it about once a second.
    func tick() { self.entrance?.tick() }

    /// Ends waiting connections. ``PublicListeners`` closes the listeners or keeps them.
    func close() {
        self.entrance?.close()
        for waiting in self.waiting {
            self.gateway.metrics.visitor(.withdrawn)
            switch waiting {
            case .new(let stream, _): stream.reset()
            case .admitted(let visitor, let stream):
                self.gateway.visitors.left(visitor.source, to: self.identity)
                stream.reset()
            }
        }
        self.waiting = []
    }

    private func arrived(_ stream: SocketStream, at listener: SocketListener) {
        guard let origin = Origin(stream, at: listener) else {
            self.gateway.metrics.visitor(.gone)
            return stream.reset()
        }
        if self.gateway.visitors.isProxy(origin) {
            let entrance = self.entrance ?? ProxyEntrance(exposure: self, gateway: self.gateway)
            self.entrance = entrance
            return entrance.arrived(stream, from: origin)
        }
        let visitor = Visitor(origin, local: stream.localAddress, self.gateway.sources)
        if visitor.isBanned(self.gateway.bans) {
            self.gateway.metrics.visitor(.banned)
            stream.reset()
        } else if let refusal = self.gateway.visitors.refusal(of: visitor.source, to: self.identity) {
            self.gateway.metrics.visitor(.refused(refusal))
            self.log("\(visitor) of '\(self.name)' refused: \(refusal)", visitor)
            stream.reset()
        } else {
            self.enter(visitor, stream)
        }
    }

    /// Opens a stream for an admitted visitor, or queues the visitor until a stream that makes room has ended.
    private func enter(_ visitor: Visitor, _ stream: SocketStream) {
        let isBanned = visitor.isBanned(self.gateway.bans)
        guard let session = self.session, !isBanned else {
            self.gateway.visitors.left(visitor.source, to: self.identity)
            self.gateway.metrics.visitor(isBanned ? .banned : .gone)
            return stream.reset()
        }
        guard session.room() != .soon else {
            self.waiting.append(.admitted(visitor, stream))
            return self.pause()
        }
        session.letIn(visitor, stream, first: nil, at: self)
    }
}

extension Exposure: SocketListenerDelegate {
    func listener(_ listener: SocketListener, didAccept stream: SocketStream) {
        // Other names of the link may have used up its pending opens since this listener was resumed.
        if self.hasRoom { self.arrived(stream, at: listener) } else { self.waiting.append(.new(stream, listener)) }
        self.pauseWithoutRoom()
    }

    func listener(_ listener: SocketListener, didFail error: UVError) {
        self.log("a visitor of '\(self.name)' could not be accepted: \(error)", nil, error: error)
    }
}
