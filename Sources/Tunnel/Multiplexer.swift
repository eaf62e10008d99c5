package import Timing
package import Wire

/// What every end of a link can do: a pure state machine, one for each version of the protocol.
///
/// The driver feeds it decrypted bytes with `nextEvent`, the bytes of its edges with `send`, and the clock with
/// `tick`; it takes what is to be sent from the outbox, which `fill` tops up, once per turn of the loop and whenever
/// the transport can take more.
package protocol Multiplexer: ~Copyable {
    var phase: LinkPhase { get }
    /// Streams that exist, also those that only wait for their edge to close.
    var streamCount: Int { get }
    var outboxCount: Int { get }
    /// Frames that were handled since the link began.
    var framesReceived: UInt64 { get }
    /// Whether a flush would find anything to send, or an edge to wake.
    var needsFlush: Bool { get }

    // MARK: The link

    /// The handshake is over: say the first words.
    mutating func start(software: String)
    /// Announces that this side ends the link: at once, or with `drain` when the streams are done.
    mutating func goAway(_ code: ErrorCode, retryAfterSeconds: UInt16, text: String)
    /// The connection is gone: nothing is sent or taken any more.
    mutating func shut()

    // MARK: Streams

    /// The edge has failed: resets both directions after what the edge had sent, within 10 s without progress. The
    /// driver closes the edge and calls `release`.
    mutating func reset(_ key: StreamKey, _ code: ErrorCode)
    /// Resets both directions at once and drops what is queued; the driver resets the edge and calls `release`.
    mutating func cut(_ key: StreamKey, _ code: ErrorCode)
    /// The edge is closed: the slot is free for the next stream.
    mutating func release(_ key: StreamKey)
    /// Since when a stream has waited for a peer that takes or grants nothing; nil when it does not.
    mutating func stalledSince(_ key: StreamKey) -> Milliseconds?
    /// Appends the streams that have waited so since `before`, and since when.
    mutating func stalledStreams(before: Milliseconds, into stalled: inout [(StreamKey, since: Milliseconds)])

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

    // MARK: Bytes of the link

    /// Says whether the transport holds bytes that it could not send yet.
    mutating func congestion(_ isCongested: Bool, now: Milliseconds)
    /// The transport's socket took some of the bytes that it held.
    mutating func outputProgressed(now: Milliseconds)
    /// Moves frames into the outbox until it holds `atMost` bytes or nothing is left.
    mutating func fill(_ atMost: Int, now: Milliseconds)
    /// Calls `body` with the bytes that are ready for the wire; it returns how many it took.
    mutating func drainOutbox(_ body: (UnsafeRawBufferPointer) -> Int)
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
    /// Which limits were met since the last call.
    mutating func takeHits() -> LinkHits
    /// The clock of the machine jumped ahead (a laptop that slept): ask the peer whether it is still there.
    mutating func clockJumped(now: Milliseconds)
}

/// What only the gateway's end of a link does.
package protocol GatewayRole: ~Copyable {
    /// The authenticator said yes.
    mutating func acceptLogin(_ welcome: Welcome, now: Milliseconds)
    /// Has other numbers of streams and names from now on: the authenticator may allow an agent more than others, or
    /// less.
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
}

/// What only the agent's end of a link does.
package protocol AgentRole: ~Copyable {
    mutating func login(_ login: Login)
    mutating func register(_ register: Register)
    /// Gives a name back; its streams go on. Version 1 cannot.
    mutating func unregister(_ exposure: UInt16)
    /// The backend is connected.
    mutating func accept(_ key: StreamKey, now: Milliseconds)
}

/// Slows the peer down where the protocol has no flow control: the transport is not read while a stream is too slow.
package protocol InputBrake: ~Copyable {
    /// Whether the transport may be read. While it is false, call
    /// ``judgeSlowStreams(now:unacknowledged:expired:)`` ten times a second.
    var takesInput: Bool { get }
    /// Gives up streams that keep the link waiting without making progress; they are appended to `expired`.
    ///
    /// - Parameter unacknowledged: bytes that the kernel holds for a stream's peer.
    mutating func judgeSlowStreams(
        now: Milliseconds, unacknowledged: (StreamKey) -> Int, expired: inout [(StreamKey, StreamExpiry)])
}

extension InputBrake where Self: ~Copyable {
    package var takesInput: Bool { true }

    package mutating func judgeSlowStreams(
        now: Milliseconds, unacknowledged: (StreamKey) -> Int, expired: inout [(StreamKey, StreamExpiry)]
    ) {}
}

/// One end of a link as its driver sees it. Version 2 has flow control for each stream, and so no brake.
package protocol LinkMachine: Multiplexer, GatewayRole, AgentRole, InputBrake, ~Copyable {}
