internal import GatewayCore
internal import Modules
internal import Reactor
internal import Timing
internal import Wire

/// A name that an agent holds, as the hub sees it.
struct HeldName {
    let id: ExposureID
    let name: Name
    let identity: AgentIdentity
    /// See ``GatewayMachine/Login/payer``. Kept here because the link may end before the name is withdrawn.
    let payer: String
    let listeners: NameListeners
    let since: Milliseconds
    var link: LinkID = 0
    /// Whether visitors are let in.
    var isPublished = false

    var address: SocketAddress? { self.listeners.address }

    /// - Parameter peer: the agent's address, for logs.
    func asPublic(peer: SocketAddress?) -> PublicExposure {
        PublicExposure(
            name: self.name, identity: self.identity.id, payer: self.payer, peer: peer, address: self.address,
            socket: self.listeners.socket)
    }
}
