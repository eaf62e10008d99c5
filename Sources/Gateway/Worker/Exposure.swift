internal import GatewayCore
internal import Journal
internal import Logging
internal import Modules
internal import Reactor
internal import Relay
internal import Tunnel
internal import Wire

/// A name with its public listeners.
///
/// It belongs to one link at a time; when the same agent comes back on another link, the name moves there with its
/// listeners open, so that no visitor is refused in between.
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
    private let listeners: [SocketListener]
    /// The agent's number for it on its present link.
    private(set) var number: UInt16 = 0
    private(set) weak var link: WorkerLink?
    private unowned let worker: Worker
    /// Nil until the first connection from a trusted proxy.
    private var entrance: ProxyEntrance?
    /// Visitors that were accepted while the agent could not take another one. Their listeners are paused then.
    private var waiting: [Waiting] = []
    private var isPublished = false
    let meter = NameMeter()

    /// It has no link until it is attached to one.
    init(_ opened: OpenedName, _ listeners: [SocketListener], worker: Worker) {
        self.id = opened.id
        self.name = opened.name
        self.identity = opened.identity
        self.listeners = listeners
        self.worker = worker
        for listener in listeners { listener.delegate = self }
        // Visitors wait in the backlog until the registrars have published the name.
        self.pause()
    }

    /// What a line about a visitor is about.
    ///
    /// - Parameter proxy: that of a visitor who is not known yet.
    private func about(_ visitor: Visitor?, proxy: Origin? = nil, error: UVError? = nil) -> Logger.Metadata {
        var metadata = self.link?.label.about() ?? [:]
        metadata.add([
            .name: self.name, .visitor: visitor?.address, .proxy: visitor?.proxy ?? proxy, .error: error,
        ])
        return metadata
    }

    /// Writes a line that visitors have caused.
    func log(_ message: @autoclosure () -> String, _ visitor: Visitor?, proxy: Origin? = nil, error: UVError? = nil) {
        self.worker.log.write(
            .info, .visitors, of: .visitors(of: self.name.text), message(),
            self.about(visitor, proxy: proxy, error: error))
    }

    /// Its visitors go to this link from now on.
    func attach(to link: WorkerLink, number: UInt16) {
        self.link?.detach(self)
        self.link = link
        self.number = number
    }

    /// Visitors may come.
    func published() {
        self.isPublished = true
        self.resume()
    }

    /// Leaves visitors in the backlog.
    func pause() {
        for listener in self.listeners { listener.pause() }
    }

    /// Why the agent cannot take another visitor now; nil when it can.
    private var obstacle: OpenObstacle? {
        self.link.map { $0.link.obstacle(toOpening: self.number) } ?? .notUp
    }

    /// Whether the agent can take another visitor now.
    var hasRoom: Bool { self.obstacle == nil }

    /// Leaves visitors in the backlog while the agent cannot take another one.
    func pauseWithoutRoom() {
        guard let obstacle = self.obstacle else { return }
        // A link that drains, or an agent that does not read, has met no limit on pending opens.
        if obstacle == .pendingOpens { self.worker.metrics.hit(.pendingOpens) }
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
        // A resumed listener may bring a visitor at once.
        for listener in self.listeners where self.hasRoom && self.waiting.isEmpty { listener.resume() }
    }

    /// Looks at the deadlines; call it about once a second.
    func tick() { self.entrance?.tick() }

    /// Ends waiting connections, and closes our copies of the listeners: what becomes of the sockets is the hub's business.
    func close() {
        self.link?.detach(self)
        for listener in self.listeners { listener.leave() }
        self.entrance?.close()
        for waiting in self.waiting {
            self.worker.metrics.visitor(.withdrawn)
            switch waiting {
            case .new(let stream, _): stream.reset()
            case .admitted(let visitor, let stream):
                self.worker.visitors.left(visitor.source, to: self.identity)
                stream.reset()
            }
        }
        self.waiting = []
    }

    private func arrived(_ stream: SocketStream, at listener: SocketListener) {
        guard let origin = Origin(stream, at: listener) else {
            self.worker.metrics.visitor(.gone)
            return stream.reset()
        }
        if self.worker.visitors.isProxy(origin) {
            let entrance = self.entrance ?? ProxyEntrance(exposure: self, worker: self.worker)
            self.entrance = entrance
            return entrance.arrived(stream, from: origin)
        }
        let visitor = Visitor(origin, local: stream.localAddress, self.worker.settings.sources)
        if visitor.isBanned(self.worker.bans) {
            self.worker.metrics.visitor(.banned)
            stream.reset()
        } else if let refusal = self.worker.visitors.refusal(of: visitor.source, to: self.identity) {
            self.worker.metrics.visitor(.refused(refusal))
            self.log("\(visitor) of '\(self.name)' refused: \(refusal)", visitor)
            stream.reset()
        } else {
            self.enter(visitor, stream)
        }
    }

    /// Opens a stream for an admitted visitor, or queues the visitor until a stream that makes room has ended.
    private func enter(_ visitor: Visitor, _ stream: SocketStream) {
        let isBanned = visitor.isBanned(self.worker.bans)
        guard let link = self.link, !isBanned else {
            self.worker.visitors.left(visitor.source, to: self.identity)
            self.worker.metrics.visitor(isBanned ? .banned : .gone)
            return stream.reset()
        }
        guard link.room() != .soon else {
            self.waiting.append(.admitted(visitor, stream))
            return self.pause()
        }
        link.letIn(visitor, stream, first: nil, at: self)
    }
}

extension Exposure: SocketListenerDelegate {
    func listener(_ listener: SocketListener, didAccept stream: SocketStream) {
        // Other names of the link may have used up its pending opens since this listener was resumed.
        if self.hasRoom { self.arrived(stream, at: listener) } else { self.waiting.append(.new(stream, listener)) }
        self.pauseWithoutRoom()
    }

    func listener(_ listener: SocketListener, didFail error: UVError) {
        // The hub has ended the listening (accept(2)), and the order to close is on its way.
        guard error != .invalidArgument else { return }
        self.log("a visitor of '\(self.name)' was not accepted: \(error)", nil, error: error)
    }
}
