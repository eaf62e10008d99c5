internal import Control
internal import GatewayCore
internal import Reactor
internal import Relay
internal import Tunnel
internal import Wire

/// What a worker reports to the hub. Visitors and the bytes of streams are the worker's own business.
enum WorkerReport: Sendable {
    // MARK: Connections before their login

    /// A PROXY header shows that the agent is not on this machine.
    case isRemote(LinkID)
    /// The header of a trusted proxy has the agent's address. The connection waits for ``WorkerOrder/proceed(_:)``.
    case introduced(LinkID, SocketAddress)
    /// The first message of the handshake is complete. The handshake waits for ``WorkerOrder/shakeHands(_:after:)``.
    case greeted(LinkID)
    /// The handshake is over.
    case secured(LinkID, pin: String?)
    case login(LinkID, Credentials)

    // MARK: Links

    case register(LinkID, Register)
    case unregister(LinkID, number: UInt16)
    /// A listener of a name cannot be used.
    case notOpened(ExposureID)
    /// The backend of a name answers.
    case probed(ExposureID, LinkID)
    /// The agent takes no new streams, or ends the link.
    case saidGoodbye(LinkID, ErrorCode)
    /// The link's stream ids are used up: the agent is to make another.
    case wornOut(LinkID)
    /// The link begins to end. It takes nothing new.
    case ending(LinkID)
    case ended(LinkID, LinkEnd)
    /// After `ended`: visitors have what came before.
    case emptied(LinkID)

    // MARK: The worker

    case news(StreamNews)
    /// Streams of all links, when that number has changed.
    case streams(Int)
    case answer(UInt64, WorkerAnswer)
}

enum WorkerAnswer: Sendable {
    case census(WorkerCensus)
    case cut(links: Int, streams: Int)
}

/// What a worker has at this moment.
struct WorkerCensus: Sendable {
    /// By link, also those that are over while visitors still get what came before.
    var streamsByLink: [LinkID: Int] = [:]
    /// By the name that they were opened for.
    var streamsByName: [ExposureID: Int] = [:]
    /// Empty if they were not asked for.
    var streams: [StreamReport] = []
    var figures = WorkerFigures()

    var streamCount: Int { self.streamsByLink.values.reduce(0, +) }
}
