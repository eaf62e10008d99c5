internal import Timing
internal import Tunnel

/// One visitor's connection on a link of version 1.
///
/// ```
///            bytes sent            edge ended (gateway)          grace over
///   waiting ───────────► open ───────────────────────► halfClosed ─────────► over
///      │                  │ └─ edge ended (agent), reset ─────────────────────► ▲
///      │                  └─ Close ─► closedByPeer ─ edge ended, grace over ──► │
///      └─ edge ended, reset ──────────────────────────────────────────────────► ┘
/// ```
struct Stream {
    enum State {
        /// Gateway: the agent does not know the stream yet, because only its first bytes open it.
        case waiting
        /// Bytes may flow both ways.
        case open
        /// Gateway: the visitor has ended its direction. `Close` is held back, because it would also end the answer.
        case halfClosed
        /// The peer has sent `Close`. Earlier bytes are still written to the edge; bytes from the edge are discarded.
        case closedByPeer
        /// The stream has left the wire. Only its edge is still to close.
        case over
        /// The slot is free.
        case free
    }

    let wireID: UInt32
    /// Not reused on a link, unlike `wireID`.
    let key: StreamKey
    var state: State
    /// The peer has sent bytes since the edge last sent some.
    var hasAnswer = false
    /// Bytes received but not yet written to the edge.
    var pending = 0
    /// Bytes from the edge that were discarded because the peer has closed the stream.
    var discarded = 0
    /// The edge stopped reading because its allowance was 0.
    var isStarved = false
    /// The mark that `pending` has reached, while the stream holds up the link; otherwise nil.
    var slowMark: Int?
    /// Bytes that waited for the edge's peer at the last check, and when that was; nil before the first check.
    var lastJudgement: (waiting: Int, time: Milliseconds)?
    /// Whether the edge has a socket. At the agent it has none until the backend is connected.
    var isConnected: Bool
    /// Bytes that the stream may send in its turn, although others wait.
    var turn = 0
    var lastActivity: Milliseconds
    /// When bytes were last written to the edge, or arrived while none were pending.
    var lastProgress: Milliseconds

    /// Whether frames with its wire id reach the stream.
    var isOnWire: Bool {
        switch self.state {
        case .waiting, .open, .halfClosed: true
        case .closedByPeer, .over, .free: false
        }
    }
}
