internal import GatewayCore
internal import Modules
internal import Reactor
internal import Timing
internal import Wire

/// A name that an agent has, as the hub knows it.
struct HeldName {
    let id: ExposureID
    let name: Name
    let identity: AgentIdentity
    /// See ``GatewayMachine/Login/payer``; also after the end of the link.
    let payer: String
    let listeners: NameListeners
    let since: Milliseconds
    var link: LinkID = 0
    /// Whether visitors may come.
    var isPublished = false

    var address: SocketAddress? { self.listeners.address }

    /// - Parameter peer: the agent's address, for logs.
    func asPublic(peer: SocketAddress?) -> PublicExposure {
        PublicExposure(
            name: self.name, identity: self.identity.id, payer: self.payer, peer: peer, address: self.address,
            socket: self.listeners.socket)
    }
}
