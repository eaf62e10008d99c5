internal import GatewayCore
internal import Reactor
internal import Relay
internal import Secure
internal import Settings
internal import Timing
internal import Wire

/// A connection of an agent that the hub has admitted.
struct NewLink: Sendable {
    let id: LinkID
    let socket: ConnectedSocket
    let peer: SocketAddress
    let isVersion1: Bool
}

/// How many streams and names an agent may have on a link.
struct LinkAllowance: Equatable, Sendable {
    let streams: Int
    let names: Int
    /// Of all streams of the agent, as its authenticator says.
    let agentStreams: Int?
}

/// A name that a worker opens for visitors.
struct OpenedName: Sendable {
    let id: ExposureID
    let name: Name
    let identity: AgentIdentity
    /// They are the worker's to close. The hub may end their listening at any time.
    let sockets: [ListenerSocket]
}

/// What the hub has a worker do. An order about a link or a name that is gone does nothing.
enum WorkerOrder: Sendable {
    // MARK: Links

    case take(NewLink)
    /// The answer to ``WorkerReport/introduced(_:_:)``.
    case proceed(LinkID)
    /// The same, for an agent that is not admitted: it gets an alert.
    case turnAway(LinkID, LinkEnd, TLSAlert)
    /// The answer to ``WorkerReport/greeted(_:)``.
    case shakeHands(LinkID, after: Milliseconds)
    /// The login is good.
    case welcome(LinkID, AgentIdentity, LinkAllowance, Welcome)
    case allow(LinkID, LinkAllowance)
    case answer(LinkID, Registered)
    /// End the link after telling the agent why.
    case end(LinkID, Refusal, retryAfterSeconds: UInt16)
    /// Close the link at once.
    case close(LinkID, LinkEnd)
    /// End the streams of a name.
    case cutStreams(LinkID, number: UInt16)
    /// End what a link that is over still delivers.
    case cutDeliveries(LinkID)

    // MARK: Names

    case open(OpenedName)
    /// The name's visitors go to the link, by that number.
    case attach(ExposureID, LinkID, number: UInt16)
    /// Ask the agent whether the backend answers; ``WorkerReport/probed(_:_:)`` follows.
    case probe(ExposureID, LinkID)
    /// Let visitors in.
    case publish(ExposureID)
    case withdraw(ExposureID)

    // MARK: The worker

    /// The key and certificate for connections that come from now on.
    case identify(IdentityPEM)
    /// Networks that are kept out from now on.
    case ban(BanList)
    /// Whether ``WorkerReport/news(_:)`` are wanted.
    case watch(Bool)
    /// A second has passed.
    case tick(slept: Bool)
    /// Take nothing new, and end each link when its streams are done.
    case drain
    /// End everything.
    case cutAll
    /// ``WorkerReport/answer(_:_:)`` follows.
    case ask(UInt64, WorkerQuestion)
    /// All links are gone, and so is the gateway.
    case shutDown
}

/// What the hub wants to know of a worker.
enum WorkerQuestion: Sendable {
    /// - Parameter withStreams: each of them, too.
    case census(withStreams: Bool)
    /// Close what a network has open, and count it.
    case cut(Network)
}
