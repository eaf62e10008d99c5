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
        /// Gateway: the agent has not heard of it, as there is no frame that opens a stream but the first bytes.
        case waiting
        /// Bytes may flow both ways.
        case open
        /// Gateway: the visitor sends no more. `Close` is held back, as it would cost it the answer.
        case halfClosed
        /// The peer has sent `Close`: what has come is written on, what the edge still sends is thrown away.
        case closedByPeer
        /// Nothing more on the wire; only the edge has to close.
        case over
        /// The slot is free.
        case free
    }

    let wireID: UInt32
    /// Never used twice on a link, unlike the wire's.
    let key: StreamKey
    var state: State
    /// The peer has sent bytes after the last that the edge has sent.
    var hasAnswer = false
    /// Bytes that arrived and were not yet written on.
    var pending = 0
    /// Bytes of the edge that were thrown away, as the peer has closed the stream.
    var discarded = 0
    /// The edge was told to stop reading because nothing more could be taken.
    var isStarved = false
    /// Set while it keeps the link waiting: the mark that `pending` is above.
    var slowMark: Int?
    /// What waited for its peer at the last judgement, and when that was; nil before the first.
    var lastJudgement: (waiting: Int, time: Milliseconds)?
    /// Whether the edge has a socket: at the agent, not before the backend is connected.
    var isConnected: Bool
    /// What it may send although others wait: its turn.
    var turn = 0
    var lastActivity: Milliseconds
    /// When bytes were last written on, or arrived at an empty edge.
    var lastProgress: Milliseconds

    /// Whether frames with its id reach it.
    var isOnWire: Bool {
        switch self.state {
        case .waiting, .open, .halfClosed: true
        case .closedByPeer, .over, .free: false
        }
    }
}
