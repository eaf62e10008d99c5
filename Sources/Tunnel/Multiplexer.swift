package import Timing
package import Wire

/// What both ends of a link need: a pure state machine, one for each version of the protocol.
///
/// The driver feeds it decrypted bytes (`nextEvent`), bytes of its edges (`send`) and the time (`tick`), and sends what
/// is in the outbox. Once per turn of the loop, and whenever the transport can take more, the driver fills the outbox
/// with `fill`.
package protocol Multiplexer: ~Copyable {
    var phase: LinkPhase { get }
    /// Streams that exist, including those that only wait for their edge to close.
    var streamCount: Int { get }
    /// Bytes in the outbox.
    var outboxCount: Int { get }
    /// Frames handled since the link began.
    var framesReceived: UInt64 { get }
    /// Whether a flush would find bytes to send or an edge to resume.
    var needsFlush: Bool { get }

    // MARK: The link

    /// Call it after the handshake. Queues the HELLO, if the version has one.
    mutating func start(software: String)
    /// Announces the end of the link: at once, or with `drain` when the streams have finished.
    mutating func goAway(_ code: ErrorCode, retryAfterSeconds: UInt16, text: String)
    /// Call it when the connection is gone. Nothing is sent or accepted afterwards.
    mutating func shut()

    // MARK: Streams

    /// Call it when the edge has failed. Sends the edge's queued bytes, then RESET; drops them after 10 s without
    /// progress. The driver closes the edge and calls `release`.
    mutating func reset(_ key: StreamKey, _ code: ErrorCode)
    /// Resets both directions at once and drops queued bytes. The driver resets the edge and calls `release`.
    mutating func cut(_ key: StreamKey, _ code: ErrorCode)
    /// Call it when the edge is closed. Frees the slot for another stream, in version 2 after a queued FIN or RESET.
    mutating func release(_ key: StreamKey)
    /// Since when a stream has stalled because a peer takes or grants nothing; nil if it is not stalled.
    mutating func stalledSince(_ key: StreamKey) -> Milliseconds?
    /// Appends the streams stalled since `before` or earlier, with that time.
    mutating func stalledStreams(before: Milliseconds, into stalled: inout [(StreamKey, since: Milliseconds)])

    // MARK: Bytes from the edges

    /// How many bytes the edge may read now. On 0 stop reading until ``nextResumable()`` returns the stream.
    mutating func sendAllowance(_ key: StreamKey) -> Int
    /// Takes bytes that the edge has read.
    ///
    /// - Precondition: no more bytes than the last `sendAllowance`.
    mutating func send(_ key: StreamKey, _ bytes: RawSpan, now: Milliseconds)
    /// Call it when the edge has read end of file. Returns true if the other direction ends too, so that nothing more
    /// from the peer reaches the edge.
    mutating func finish(_ key: StreamKey, now: Milliseconds) -> Bool
    /// Call it when the driver has written `count` bytes of the stream to the edge's socket.
    mutating func consumed(_ key: StreamKey, _ count: Int, now: Milliseconds)
    /// Call it when the kernel shows that the edge's peer takes bytes, although no write has completed.
    mutating func progressed(_ key: StreamKey, now: Milliseconds)
    /// The next starved stream that can take bytes again, or nil. Let its edge read.
    mutating func nextResumable() -> StreamKey?

    // MARK: Bytes of the link

    /// Reports whether the transport holds unsent bytes.
    mutating func congestion(_ isCongested: Bool, now: Milliseconds)
    /// Reports that the transport's socket took some of those bytes.
    mutating func outputProgressed(now: Milliseconds)
    /// Moves frames into the outbox until it holds `atMost` bytes or no frames are left.
    mutating func fill(_ atMost: Int, now: Milliseconds)
    /// Calls `body` with bytes to be sent, piece by piece, until at least `atMost` bytes are sent or none are left. Each
    /// piece ends with a whole frame.
    mutating func drainOutbox(atMost: Int, _ body: (UnsafeRawBufferPointer) -> Void)
    /// Takes the next frame of `batch` at `offset` and moves `offset` past it.
    ///
    /// Call it until it returns ``LinkEvent/needMore``. Then keep `batch` from `offset` on, less than one frame, and
    /// put it before the next bytes. Frames that require nothing from the driver cause no event.
    mutating func nextEvent(_ batch: RawSpan, at offset: inout Int, now: Milliseconds) -> LinkEvent
    /// Reports that bytes arrived from the peer, complete frame or not, so it is alive.
    mutating func heard(now: Milliseconds)

    // MARK: The clock

    /// Checks every deadline. Call it about once a second.
    ///
    /// Appends expired streams to `expired`. The machine has already ended them; the driver ends their edges.
    mutating func tick(now: Milliseconds, expired: inout [(StreamKey, StreamExpiry)]) -> LinkTick
    /// Returns the limits hit since the last call.
    mutating func takeHits() -> LinkHits
    /// Reports that the system's clock jumped ahead (a laptop that slept). Checks whether the peer is still there, if
    /// the version has a PING.
    mutating func clockJumped(now: Milliseconds)
}

/// Commands of the gateway's end of a link.
package protocol GatewayRole: ~Copyable {
    /// Call it when the authenticator has accepted the login. Sends `welcome`.
    mutating func acceptLogin(_ welcome: Welcome, now: Milliseconds)
    /// Changes the numbers of streams and names: the authenticator may allow an agent more or fewer than the default.
    mutating func allow(streams: Int, names: Int, now: Milliseconds)
    mutating func answerRegister(_ answer: Registered)
    /// Why the agent cannot be given another stream of an exposure now, or nil if it can. Visitors then stay in the
    /// listener's backlog.
    ///
    /// It changes nothing, but must be `mutating`: Swift 6.3 cannot call other methods on a stored noncopyable
    /// existential.
    mutating func obstacle(toOpening exposure: UInt16) -> OpenObstacle?
    /// Whether the agent has no room for another stream. The visitor is then reset.
    var isFull: Bool { get }
    /// Whether the link has used so many stream ids that a new link should replace it.
    var isWornOut: Bool { get }
    /// A stream that a full link can give up for a new visitor, or nil. End its edge in order.
    mutating func makeRoom() -> StreamKey?
    /// Opens a stream for a visitor. Returns nil if the link cannot take it.
    mutating func open(exposure: UInt16, visitor: WireAddress, local: WireAddress, now: Milliseconds) -> StreamKey?
}

/// Commands of the agent's end of a link.
package protocol AgentRole: ~Copyable {
    mutating func login(_ login: Login)
    mutating func register(_ register: Register)
    /// Unregisters a name. Its streams continue. Version 1 cannot do this and ignores the call.
    mutating func unregister(_ exposure: UInt16)
    /// Call it when the backend is connected.
    mutating func accept(_ key: StreamKey, now: Milliseconds)
}

/// Slows the peer down if the protocol has no flow control: the transport is not read while a stream is too slow.
package protocol InputBrake: ~Copyable {
    /// Whether the transport may be read. While it is false, call
    /// ``judgeSlowStreams(now:unacknowledged:expired:)`` ten times a second.
    var takesInput: Bool { get }
    /// Resets streams that hold up the link without enough progress, and appends them to `expired`.
    ///
    /// - Parameter unacknowledged: returns the bytes of a stream in the kernel that the edge's peer has not
    ///   acknowledged.
    mutating func judgeSlowStreams(
        now: Milliseconds, unacknowledged: (StreamKey) -> Int, expired: inout [(StreamKey, StreamExpiry)])
}

extension InputBrake where Self: ~Copyable {
    package var takesInput: Bool { true }

    package mutating func judgeSlowStreams(
        now: Milliseconds, unacknowledged: (StreamKey) -> Int, expired: inout [(StreamKey, StreamExpiry)]
    ) {}
}

/// Lets a link outlive its connection: its *session* continues on another *carrier* (`docs/protocol.md`, Sessions).
/// Version 1 cannot do this.
package protocol Resumption: ~Copyable {
    /// Whether the link can continue on another connection. Then call `detach` when its connection is gone, not `shut`.
    var canResume: Bool { get }
    /// Nil if the link cannot be resumed.
    var sessionKey: SessionKey? { get }
    /// How long the session waits for a carrier.
    var resumeWindow: Milliseconds { get }
    /// Memory of the frames that are kept, in bytes.
    var keptBytes: Int { get }
    /// Whether a counted frame was handled that no ACK reports. Call `acknowledge` after
    /// ``LinkLimits/acknowledgementDelay``.
    var owesAcknowledgement: Bool { get }
    mutating func acknowledge()
    /// Call it when the connection is gone. The streams stay, and what they send is queued.
    mutating func detach(now: Milliseconds)
    /// The session ends with its connection from now on.
    mutating func forbidResuming()

    // MARK: The agent's link

    /// When the connection counts as stuck: the agent then makes another one beside it. Nil if the peer owes nothing.
    var stuckAt: Milliseconds? { get }
    /// Sends a PING unless one is under way or was sent a moment ago. Call it when the network has changed.
    mutating func probe(now: Milliseconds)
    /// The next RESUME of this session, without its proof. Call it when the former connection is closed.
    mutating func nextResume() -> Resume
    /// Continues on the connection on which RESUMED arrived.
    mutating func resume(_ resumed: Resumed, now: Milliseconds) throws(PeerViolation)

    // MARK: The gateway's link

    /// Judges a RESUME whose proof is valid.
    mutating func judge(_ resume: Resume, now: Milliseconds) -> ResumeVerdict

    // MARK: The link of a new connection

    /// Agent: sends RESUME instead of LOGIN.
    mutating func request(_ resume: Resume)
    /// Gateway: answers RESUME with session-gone. LOGIN may follow.
    mutating func refuseResume(_ resume: Resume)
}

extension Resumption where Self: ~Copyable {
    package var canResume: Bool { false }
    package var sessionKey: SessionKey? { nil }
    package var resumeWindow: Milliseconds { 0 }
    package var keptBytes: Int { 0 }
    package var owesAcknowledgement: Bool { false }
    package var stuckAt: Milliseconds? { nil }
    package mutating func probe(now: Milliseconds) {}
    package mutating func acknowledge() {}
    package mutating func detach(now: Milliseconds) { preconditionFailure("this version cannot resume") }
    package mutating func forbidResuming() {}
    package mutating func nextResume() -> Resume { preconditionFailure("this version cannot resume") }
    package mutating func resume(_ resumed: Resumed, now: Milliseconds) throws(PeerViolation) {}
    package mutating func judge(_ resume: Resume, now: Milliseconds) -> ResumeVerdict { .replaced }
    package mutating func request(_ resume: Resume) {}
    package mutating func refuseResume(_ resume: Resume) {}
}

/// One end of a link as its driver sees it. Version 2 has flow control per stream and needs no brake.
package protocol LinkMachine: Multiplexer, GatewayRole, AgentRole, InputBrake, Resumption, ~Copyable {}
