internal import Control
internal import GatewayCore
internal import Reactor
internal import Relay
internal import Tunnel
internal import Wire

/// A report from a worker to the hub. Visitors and the bytes of streams stay within the worker.
enum WorkerReport: Sendable {
    // MARK: Connections before their login

    /// A PROXY header gives the agent a non-loopback address, so it has no local rights.
    case isRemote(LinkID)
    /// A trusted proxy's header gives the agent's address. The connection waits for ``WorkerOrder/proceed(_:)``.
    case introduced(LinkID, SocketAddress)
    /// The first message of the handshake is complete. The handshake waits for ``WorkerOrder/shakeHands(_:after:)``.
    case greeted(LinkID)
    /// The handshake is complete.
    case secured(LinkID, pin: String?)
    case login(LinkID, Credentials)

    // MARK: Links

    /// The link has lost its connection and waits for the next one.
    case detached(LinkID, LinkEnd)
    /// The link continues on another connection, which had an id of its own.
    case resumed(LinkID, on: LinkID)
    /// A connection tried to resume a link without knowing its secret. It may log in.
    case notProven(LinkID)
    case register(LinkID, Register)
    case unregister(LinkID, number: UInt16)
    /// A listener of a name failed to open.
    case notOpened(ExposureID)
    /// The backend of a name accepted a connection.
    case probed(ExposureID, LinkID)
    /// The agent sent GOAWAY: it accepts no new streams, or is ending the link.
    case saidGoodbye(LinkID, ErrorCode)
    /// The link's stream ids are used up; the agent was asked to make another link.
    case wornOut(LinkID)
    /// The link is about to end and accepts nothing new.
    case ending(LinkID)
    /// The connection is closed; buffered bytes may still be on their way to visitors.
    case ended(LinkID, LinkEnd)
    /// Follows `ended`, once visitors have received all buffered bytes.
    case emptied(LinkID)

    // MARK: The worker

    case news(StreamNews)
    /// The number of streams of all links; sent when it has changed.
    case streams(Int)
    case answer(UInt64, WorkerAnswer)
}

enum WorkerAnswer: Sendable {
    case census(WorkerCensus)
    case cut(links: Int, streams: Int)
}

/// A snapshot of a worker.
struct WorkerCensus: Sendable {
    /// By link, including ended links that still deliver buffered bytes to visitors.
    var streamsByLink: [LinkID: Int] = [:]
    /// By the name that they were opened for, for open links only.
    var streamsByName: [ExposureID: Int] = [:]
    /// Empty unless requested.
    var streams: [StreamReport] = []
    var figures = WorkerFigures()

    var streamCount: Int { self.streamsByLink.values.reduce(0, +) }
}
