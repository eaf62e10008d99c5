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
/// It belongs to one link at a time. When its agent comes back on another link, it moves there with its listeners open,
/// so that no visitor is refused.
final class Exposure {
    private enum Waiting {
        /// Not checked yet.
        case new(SocketStream, SocketListener)
        /// Counted in the ``VisitorTable``.
        case admitted(Visitor, SocketStream)
    }

    let id: ExposureID
    let name: Name
    let identity: AgentIdentity
    private let listeners: [SocketListener]
    /// The agent's number for it on its current link.
    private(set) var number: UInt16 = 0
    private(set) weak var link: WorkerLink?
    private unowned let worker: Worker
    /// Nil until the first connection from a trusted proxy.
    private var entrance: ProxyEntrance?
    /// Visitors accepted while the agent could not take another stream. The listeners are paused then.
    private var waiting: [Waiting] = []
    private var isPublished = false
    let meter = NameMeter()

    /// It has no link until `attach`.
    init(_ opened: OpenedName, _ listeners: [SocketListener], worker: Worker) {
        self.id = opened.id
        self.name = opened.name
        self.identity = opened.identity
        self.listeners = listeners
        self.worker = worker
        for listener in listeners { listener.delegate = self }
        // Until the name is published, visitors wait in the backlog.
        self.pause()
    }

    /// The metadata of a line about a visitor.
    ///
    /// - Parameter proxy: the proxy of a connection whose visitor is not known yet.
    private func about(_ visitor: Visitor?, proxy: Origin? = nil, error: UVError? = nil) -> Logger.Metadata {
        var metadata = self.link?.label.about() ?? [:]
        metadata.add([
            .name: self.name, .visitor: visitor?.address, .proxy: visitor?.proxy ?? proxy, .error: error,
        ])
        return metadata
    }

    /// Logs a line caused by visitors.
    func log(_ message: @autoclosure () -> String, _ visitor: Visitor?, proxy: Origin? = nil, error: UVError? = nil) {
        self.worker.log.write(
            .info, .visitors, of: .visitors(of: self.name.text), message(),
            self.about(visitor, proxy: proxy, error: error))
    }

    /// Routes its visitors to this link from now on.
    func attach(to link: WorkerLink, number: UInt16) {
        self.link?.detach(self)
        self.link = link
        self.number = number
    }

    /// Lets visitors in from now on.
    func published() {
        self.isPublished = true
        self.resume()
    }

    /// Stops accepting: visitors stay in the backlog.
    func pause() {
        for listener in self.listeners { listener.pause() }
    }

    /// Why the agent cannot take another stream now; nil if it can.
    private var obstacle: OpenObstacle? {
        self.link.map { $0.link.obstacle(toOpening: self.number) } ?? .notUp
    }

    /// Whether the agent can take another stream now.
    var hasRoom: Bool { self.obstacle == nil }

    /// Stops accepting while the agent cannot take another stream.
    func pauseWithoutRoom() {
        guard let obstacle = self.obstacle else { return }
        // Only this obstacle is a limit; the others are a draining link and an agent that does not read.
        if obstacle == .pendingOpens { self.worker.metrics.hit(.pendingOpens) }
        self.pause()
    }

    /// Lets waiting visitors in, then accepts again, as far as the agent has room.
    func resume() {
        guard self.isPublished else { return }
        self.entrance?.letIn()
        // One pass only: visitors that have to wait longer are appended again.
        for _ in 0..<self.waiting.count where self.hasRoom {
            switch self.waiting.removeFirst() {
            case .new(let stream, let listener): self.arrived(stream, at: listener)
            case .admitted(let visitor, let stream): self.enter(visitor, stream)
            }
        }
        // Check before each listener: a resumed one may deliver a visitor synchronously.
        for listener in self.listeners where self.hasRoom && self.waiting.isEmpty { listener.resume() }
    }

    /// Checks deadlines. Call about once a second.
    func tick() { self.entrance?.tick() }

    /// Resets waiting connections and closes this worker's copies of the listeners. The hub ends or keeps the sockets.
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

    /// Opens a stream for an admitted visitor. If the link has to end another stream first, the visitor waits.
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
        // EINVAL: the hub has shut the socket down (accept(2)); its order to withdraw the name follows.
        guard error != .invalidArgument else { return }
        self.log("a visitor of '\(self.name)' was not accepted: \(error)", nil, error: error)
    }
}
