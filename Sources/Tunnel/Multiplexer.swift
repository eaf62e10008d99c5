package import Timing
package import Wire

/// What the machine found in the bytes that the driver fed it; the driver performs it and feeds on.
package enum LinkEvent: Equatable {
    /// The batch holds no further whole frame; from the given offset on it is to be kept.
    case needMore
    /// Gateway: ask the authenticator, then call `acceptLogin` or `goAway`.
    case login(Credentials)
    /// Agent: the login was accepted; register the names.
    case welcomed(Welcome)
    /// Gateway: answer with `answerRegister`.
    case register(Register)
    /// Agent: an answer, or the word that an exposure is gone.
    case registered(Registered)
    /// Gateway: close the exposure.
    case unregister(exposure: UInt16)
    /// Agent: connect the backend, then call `accept` or `reset`.
    case opened(StreamKey, Open)
    /// Gateway: the agent is ready for visitors.
    case ready
    /// Gateway: the backend is connected.
    case accepted(StreamKey)
    /// Write these bytes of the batch to the edge, then, with `fin`, end its sending direction. Report `consumed`.
    case data(StreamKey, Range<Int>, fin: Bool)
    /// Reset the edge once it has what came before, and call `release` when it is closed.
    case reset(StreamKey, ErrorCode)
    /// The peer takes no new streams, or ends the link.
    case goAway(GoAway)
    /// The peer broke the protocol. The last words are in the outbox: flush and close the socket.
    case violation(PeerViolation)
}

/// How a peer broke the protocol.
package struct PeerViolation: Error, Equatable {
    package let code: ErrorCode
    /// For the log: made of our words and numbers only.
    package let detail: String

    package init(code: ErrorCode, detail: String) {
        self.code = code
        self.detail = detail
    }

    package static func `protocol`(_ detail: String) -> PeerViolation {
        PeerViolation(code: .protocolViolation, detail: detail)
    }
}

/// What the clock demands.
package enum LinkTick: Equatable {
    case none
    /// The link is over: flush the last words that are in the outbox if that is possible, and close.
    case close(ErrorCode)
}

/// How the clock ends a stream.
package enum StreamExpiry: Equatable {
    /// Reset the edge.
    case reset(ErrorCode)
    /// End both directions of the edge in order, as the peer has said all that it will say.
    case finish
}

/// Why no further stream of an exposure can be opened now.
package enum OpenObstacle: Equatable, Sendable {
    /// The link is not up yet, drains, or has ended.
    case notUp
    /// The agent has not read enough of the control frames that it was sent.
    case owedControl
    /// Too many streams of the exposure wait for ACCEPT.
    case pendingOpens
}

/// One end of a link as its driver sees it: a pure state machine, one for each version of the protocol.
///
/// The driver feeds it decrypted bytes with `nextEvent`, the bytes of its edges with `send`, and the clock with
/// `tick`; it takes what is to be sent from the outbox, which `fill` tops up, once per turn of the loop and whenever
/// the link's socket can take more.
package protocol Multiplexer: ~Copyable {
    var phase: LinkPhase { get }
    /// Streams that exist, also those that only wait for their edge to close.
    var streamCount: Int { get }
    var outboxCount: Int { get }
    /// Frames that were handled since the link began.
    var framesReceived: UInt64 { get }
    /// Whether a flush would find anything to send, or an edge to wake.
    var needsFlush: Bool { get }

    // MARK: Commands of both roles

    /// The handshake is over: say the first words.
    mutating func start(software: String)
    /// Announces that this side ends the link: at once, or with `drain` when the streams are done.
    mutating func goAway(_ code: ErrorCode, retryAfterSeconds: UInt16, text: String)
    /// The connection is gone: nothing is sent or taken any more.
    mutating func shut()
    /// The edge has failed: resets both directions after what the edge had sent, within 10 s without progress. The
    /// driver closes the edge and calls `release`.
    mutating func reset(_ key: StreamKey, _ code: ErrorCode)
    /// Resets both directions at once and drops what is queued; the driver resets the edge and calls `release`.
    mutating func cut(_ key: StreamKey, _ code: ErrorCode)
    /// The edge is closed: the slot is free for the next stream.
    mutating func release(_ key: StreamKey)

    // MARK: Commands of the gateway

    /// The authenticator said yes.
    mutating func acceptLogin(_ welcome: Welcome, now: Milliseconds)
    /// Has other numbers of streams and names from now on: the authenticator may allow an agent more than others, or less.
    mutating func allow(streams: Int, names: Int, now: Milliseconds)
    mutating func answerRegister(_ answer: Registered)
    /// Why the agent cannot be given another stream of an exposure now, so that visitors stay in the listener's backlog;
    /// nil when it can. It changes nothing, but must be `mutating`: Swift 6.3 cannot call other methods on a stored
    /// existential that is not copyable.
    mutating func obstacle(toOpening exposure: UInt16) -> OpenObstacle?
    /// Whether the agent has no room for another stream: reset the visitor.
    var isFull: Bool { get }
    /// Whether so many streams were opened that the link should make way for a new one.
    var isWornOut: Bool { get }
    /// A stream of a full link that can be spared for a visitor, if there is one: its edge is to end in order.
    mutating func makeRoom() -> StreamKey?
    /// Opens a stream for a visitor; nil when the link cannot take it.
    mutating func open(exposure: UInt16, visitor: WireAddress, local: WireAddress, now: Milliseconds) -> StreamKey?

    // MARK: Commands of the agent

    mutating func login(_ login: Login)
    mutating func register(_ register: Register)
    /// Gives a name back; its streams go on. Version 1 cannot.
    mutating func unregister(_ exposure: UInt16)
    /// The backend is connected.
    mutating func accept(_ key: StreamKey, now: Milliseconds)

    // MARK: Bytes from the edges

    /// How many bytes the edge may read now; 0 means stop reading until ``nextResumable()`` names the stream.
    mutating func sendAllowance(_ key: StreamKey) -> Int
    /// Takes bytes that the edge has read.
    ///
    /// - Precondition: not more than the last `sendAllowance`.
    mutating func send(_ key: StreamKey, _ bytes: RawSpan, now: Milliseconds)
    /// The edge will read no more. True when the other direction is over with it: nothing that the peer still sends
    /// reaches the edge.
    mutating func finish(_ key: StreamKey, now: Milliseconds) -> Bool
    /// The driver has written `count` bytes of the stream on, to the edge's socket.
    mutating func consumed(_ key: StreamKey, _ count: Int, now: Milliseconds)
    /// The kernel shows that the peer of the edge still takes bytes, though none could be reported as written on.
    mutating func progressed(_ key: StreamKey, now: Milliseconds)
    /// The next starved stream that can take bytes again: let its edge read.
    mutating func nextResumable() -> StreamKey?

    // MARK: The link's socket

    /// Says whether the link's socket holds bytes that it could not send yet.
    mutating func congestion(_ isCongested: Bool, now: Milliseconds)
    /// The link's socket took some of the bytes that it held.
    mutating func outputProgressed(now: Milliseconds)
    /// Moves frames into the outbox until it holds `most` bytes or nothing is left.
    mutating func fill(_ most: Int, now: Milliseconds)
    /// Calls `body` with the bytes that are ready for the wire; it returns how many it took.
    mutating func drainOutbox(_ body: (UnsafeRawBufferPointer) -> Int)
    /// Whether the link's socket may be read: without flow control in the protocol, not reading is all that slows the
    /// peer down. While it is false, call ``judgeSlowStreams(now:unacknowledged:expired:)`` ten times a second.
    var takesInput: Bool { get }
    /// Gives up streams that keep the link waiting without making progress; they are appended to `expired`.
    ///
    /// - Parameter unacknowledged: bytes that the kernel holds for a stream's peer.
    mutating func judgeSlowStreams(
        now: Milliseconds, unacknowledged: (StreamKey) -> Int, expired: inout [(StreamKey, StreamExpiry)])
    /// Takes the next frame of `batch` at `offset` and moves `offset` past it.
    ///
    /// Call it until it returns ``LinkEvent/needMore``; then keep `batch` from `offset` on, which is less than one
    /// frame, and put it before the next bytes. Frames that ask nothing of the driver are handled on the way.
    mutating func nextEvent(_ batch: RawSpan, at offset: inout Int, now: Milliseconds) -> LinkEvent
    /// Bytes came from the peer, whatever they mean: it lives.
    mutating func heard(now: Milliseconds)

    // MARK: The clock

    /// Looks at every deadline; call it about once a second.
    ///
    /// Streams that are over are appended to `expired`; the machine has ended them already, the driver ends their
    /// edges.
    mutating func tick(now: Milliseconds, expired: inout [(StreamKey, StreamExpiry)]) -> LinkTick
    /// Since when a stream has waited for a peer that takes or grants nothing; nil when it does not.
    mutating func stalledSince(_ key: StreamKey) -> Milliseconds?
    /// Appends the streams that have waited so since `before`, and since when.
    mutating func stalledStreams(before: Milliseconds, into stalled: inout [(StreamKey, since: Milliseconds)])
    /// Which limits were met since the last call.
    mutating func takeHits() -> LinkHits
    /// The clock of the machine jumped ahead (a laptop that slept): ask the peer whether it is still there.
    mutating func clockJumped(now: Milliseconds)
}
