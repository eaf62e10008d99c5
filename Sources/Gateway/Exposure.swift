internal import Admission
internal import Modules
internal import Reactor
internal import Registry
internal import Wire

/// A registered name with its public listener.
///
/// It belongs to one session at a time; when the same agent comes back on another link, the exposure moves there with
/// its listener open, so that no visitor is refused in between.
final class Exposure {
    let name: Name
    let identity: AgentIdentity
    private(set) var listener: TCPListener
    /// The agent's number for it on its present link.
    private(set) var number: UInt16
    private(set) weak var session: AgentSession?
    private unowned let gateway: GatewayServer
    private(set) var isPublished = false

    init(
        name: Name, identity: AgentIdentity, listener: TCPListener, number: UInt16, session: AgentSession,
        gateway: GatewayServer
    ) {
        self.name = name
        self.identity = identity
        self.listener = listener
        self.number = number
        self.session = session
        self.gateway = gateway
        listener.delegate = self
        // Nobody is let in before the registrars have published the name.
        listener.pause()
    }

    var address: SocketAddress { self.listener.address }

    var asPublic: PublicExposure {
        PublicExposure(name: self.name, identity: self.identity.id, address: self.address)
    }

    func move(to session: AgentSession, number: UInt16) {
        self.session = session
        self.number = number
    }

    /// Visitors may come.
    func published() {
        self.isPublished = true
        self.resume()
    }

    /// Leaves visitors in the backlog.
    func pause() { self.listener.pause() }

    /// Lets visitors in again that were left in the backlog.
    func resume() {
        guard self.isPublished, self.session?.canOpen ?? false else { return }
        self.listener.resume()
    }

    func close() { self.listener.close() }
}

extension Exposure: TCPListenerDelegate {
    func listener(_ listener: TCPListener, didAccept stream: SocketStream) {
        guard let session = self.session else { return stream.reset() }
        session.visitorArrived(stream, at: self)
        // The next ones wait in the backlog until the agent has caught up.
        if !session.canOpen { listener.pause() }
    }

    func listener(_ listener: TCPListener, didFail error: UVError) {
        self.gateway.noisy("a visitor of '\(self.name)' could not be accepted: \(error)")
    }
}
