internal import GatewayCore
internal import Reactor
internal import Relay
internal import Secure
internal import Settings
internal import Timing
internal import Wire

/// An agent's connection that the hub has admitted.
struct NewLink: Sendable {
    let id: LinkID
    let socket: ConnectedSocket
    let peer: SocketAddress
    let isVersion1: Bool
}

/// The limits of a link on streams and names.
struct LinkAllowance: Equatable, Sendable {
    let streams: Int
    let names: Int
    /// The agent's own limit on streams, set by the authenticator; nil if it set none.
    let agentStreams: Int?
}

/// A name whose listeners a worker takes over.
struct OpenedName: Sendable {
    let id: ExposureID
    let name: Name
    let identity: AgentIdentity
    /// The worker closes these. The hub may shut them down at any time.
    let sockets: [ListenerSocket]
}

/// An order from the hub to a worker. Orders about a link or a name that is gone do nothing.
enum WorkerOrder: Sendable {
    // MARK: Links

    case take(NewLink)
    /// Answers ``WorkerReport/introduced(_:_:)``: the agent is admitted.
    case proceed(LinkID)
    /// Answers ``WorkerReport/introduced(_:_:)``: the agent is refused with this TLS alert.
    case turnAway(LinkID, LinkEnd, TLSAlert)
    /// Answers ``WorkerReport/greeted(_:)``; the handshake continues after this delay in milliseconds.
    case shakeHands(LinkID, after: Milliseconds)
    /// The login was accepted.
    case welcome(LinkID, AgentIdentity, LinkAllowance, Welcome)
    /// The link's limits have changed.
    case allow(LinkID, LinkAllowance)
    /// Send the agent this answer to a REGISTER.
    case answer(LinkID, Registered)
    /// Send the agent the reason, then end the link.
    case end(LinkID, Refusal, retryAfterSeconds: UInt16)
    /// Close the link at once.
    case close(LinkID, LinkEnd)
    /// The agent has logged in again instead of resuming this link: reset its streams, and close it when its names have
    /// moved.
    case retire(LinkID)
    /// Reset the streams of a name.
    case cutStreams(LinkID, number: UInt16)
    /// Reset the streams of an ended link that still deliver buffered bytes to visitors.
    case cutDeliveries(LinkID)

    // MARK: Names

    case open(OpenedName)
    /// Route the name's visitors to the link, where it now has this number.
    case attach(ExposureID, LinkID, number: UInt16)
    /// Probe the backend until it accepts a connection; ``WorkerReport/probed(_:_:)`` follows.
    case probe(ExposureID, LinkID)
    /// Let visitors in.
    case publish(ExposureID)
    case withdraw(ExposureID)

    // MARK: The worker

    /// The key and certificate for new connections.
    case identify(IdentityPEM)
    /// Replaces the list of banned networks.
    case ban(BanList)
    /// Whether to send ``WorkerReport/news(_:)``.
    case watch(Bool)
    /// Sent every second.
    ///
    /// - Parameter slept: whether the machine was suspended since the last one, so that connections may be dead.
    case tick(slept: Bool)
    /// Accept nothing new, and end each link once its streams have finished. Links are not resumed any more.
    case drain
    /// Close all links and streams at once.
    case cutAll
    /// A query, by its number; ``WorkerReport/answer(_:_:)`` follows.
    case ask(UInt64, WorkerQuestion)
    /// All links are gone and the gateway exits.
    case shutDown
}

/// A query from the hub to a worker.
enum WorkerQuestion: Sendable {
    /// - Parameter withStreams: whether to list each stream.
    case census(withStreams: Bool)
    /// Close the links and streams of a network, and count them.
    case cut(Network)
}
