internal import Bytes
internal import Timing
internal import Wire

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
///       ├──────────────┴─► resetting (RESET follows the queue) ─┐
///       └─► reset ◄─────────────────────────────────────────────┘
///           the peer's RESET, a cut, or 10 s without progress: the queue is dropped
/// ```
enum SendHalf {
    case open
    /// The end was asked for; bytes are still queued before it.
    case finishing
    /// FIN was sent.
    case finished
    /// The edge failed; what it had sent goes out first, with its FIN if it had ended in order, then RESET.
    case resetting(ErrorCode, finFirst: Bool)
    /// RESET was sent or received.
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
    /// What the budget holds for the memory of `queue`.
    var chargedForQueue = 0
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
    /// While our RESET waits: since when nothing of the queue was sent, as of the last tick.
    var resetStalledSince: Milliseconds?

    /// Has the budget follow the memory of `queue`; to be called after each change of it.
    mutating func chargeQueue(_ budget: ByteBudget) {
        let capacity = self.queue.capacity
        if capacity > self.chargedForQueue {
            budget.take(capacity - self.chargedForQueue)
        } else if capacity < self.chargedForQueue {
            budget.give(self.chargedForQueue - capacity)
        }
        self.chargedForQueue = capacity
    }

    /// Since when bytes of either direction have waited without progress; nil when none wait.
    var stalledSince: Milliseconds? {
        guard self.receiveCredit.pending > 0 || !self.queue.isEmpty || self.isStarved else { return nil }
        return max(self.lastActivity, self.lastProgress)
    }

    var isReset: Bool {
        switch self.send {
        case .reset: true
        case .open, .finishing, .finished, .resetting: false
        }
    }

    var isResetting: Bool {
        switch self.send {
        case .resetting: true
        case .open, .finishing, .finished, .reset: false
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
