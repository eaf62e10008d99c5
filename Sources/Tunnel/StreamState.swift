internal import Bytes
internal import Timing

/// Names a stream of a link.
///
/// The slot finds it in constant time, in the machine and in the driver's own table; the id, never used twice, tells
/// whether the slot still means the same stream.
package struct StreamKey: Hashable, Sendable {
    package let slot: Int
    package let id: UInt32

    package init(slot: Int, id: UInt32) {
        self.slot = slot
        self.id = id
    }
}

/// Our direction of a stream.
///
/// ```
///            finish, queue empty            ┌──────────┐
///   ┌──────┐ ─────────────────────────────► │ finished │
///   │ open │                                └──────────┘
///   └──────┘ ─► finishing (FIN follows the queue) ─► ▲
///       │              │
///       └──── reset ◄──┘   by either side; the queue is dropped
/// ```
enum SendHalf {
    case open
    /// The end was asked for; bytes are still queued before it.
    case finishing
    /// FIN was sent.
    case finished
    case reset
}

/// The peer's direction of a stream.
///
/// ```
///   open ── FIN ──► ended
///     └──── RESET, or ours ──► reset
/// ```
enum ReceiveHalf {
    case open
    /// FIN arrived: all bytes have been received, though perhaps not yet written on.
    case ended
    case reset
}

/// Whether the agent has connected the backend.
enum Opening {
    case awaitingAccept(deadline: Milliseconds)
    case accepted
}

/// One visitor's connection on the link: two half-close automata, the credit of both directions and the send queue.
struct Stream: ~Copyable {
    let id: UInt32
    let exposure: UInt16
    var opening: Opening
    var send = SendHalf.open
    var receive = ReceiveHalf.open
    var sendCredit: SendCredit
    var receiveCredit: ReceiveCredit
    /// Bytes taken from the edge that wait for credit or for the link.
    var queue = ByteQueue()
    /// Bytes of send quantum left in this round (deficit round robin).
    var deficit = 0
    /// In one of the scheduler's rings.
    var isScheduled = false
    /// In the list of streams whose limit must be announced.
    var owesWindow = false
    /// The edge was told to stop reading because nothing more could be taken.
    var isStarved = false
    /// The edge is closed and only the queued end of our direction is to be sent.
    var isOrphan = false
    var lastActivity: Milliseconds
    /// When bytes were last written on, or arrived at an empty edge.
    var lastProgress: Milliseconds

    var isReset: Bool {
        switch self.send {
        case .reset: true
        case .open, .finishing, .finished: false
        }
    }

    /// Both directions have ended in order.
    var isComplete: Bool {
        switch (self.send, self.receive) {
        case (.finished, .ended): true
        default: false
        }
    }
}
