internal import Bytes
internal import Timing
internal import Wire

/// Identifies a stream of a link.
///
/// The slot finds the stream in constant time, in the machine and in the driver's own table. The id is never reused and
/// shows whether the slot still holds the same stream.
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
    /// The edge has ended. FIN follows the queued bytes.
    case finishing
    /// FIN was sent.
    case finished
    /// The edge has failed. Its queued bytes go first, with FIN if it had ended in order, then RESET.
    case resetting(ErrorCode, finFirst: Bool)
    /// RESET was sent or received.
    case reset
}

/// The peer's direction of a stream.
///
/// ```
///   open ── FIN ──► ended
///     └──── RESET, the peer's or ours ──► reset
/// ```
enum ReceiveHalf {
    case open
    /// FIN arrived: all bytes are received, but perhaps not yet written to the edge.
    case ended
    case reset
}

/// Whether the agent has connected the backend.
enum Opening {
    case awaitingAccept(deadline: Milliseconds)
    case accepted
}

/// One visitor's connection on the link: the states and credit of both directions, and the send queue.
struct Stream: ~Copyable {
    let id: UInt32
    let exposure: UInt16
    var opening: Opening
    var send = SendHalf.open
    var receive = ReceiveHalf.open
    var sendCredit: SendCredit
    var receiveCredit: ReceiveCredit
    /// Bytes read from the edge that wait for credit or for the link.
    var queue = ByteQueue()
    /// Bytes charged to the budget for the memory of `queue`.
    var chargedForQueue = 0
    /// Bytes of the send quantum left in this round (deficit round robin).
    var deficit = 0
    /// The stream is in one of the scheduler's rings.
    var isScheduled = false
    /// The stream is in the list of streams that owe a WINDOW.
    var owesWindow = false
    /// The edge stopped reading because its allowance was 0.
    var isStarved = false
    /// The edge is closed, and only the queued FIN or RESET is left to send.
    var isOrphan = false
    var lastActivity: Milliseconds
    /// When bytes were last written to the edge, or arrived while none were pending.
    var lastProgress: Milliseconds
    /// While our RESET is queued: the first tick since a queued byte was last sent.
    var resetStalledSince: Milliseconds?

    /// Charges the budget for the memory of `queue`. Call it after each change of the queue.
    mutating func chargeQueue(_ budget: ByteBudget) {
        let capacity = self.queue.capacity
        if capacity > self.chargedForQueue {
            budget.take(capacity - self.chargedForQueue)
        } else if capacity < self.chargedForQueue {
            budget.give(self.chargedForQueue - capacity)
        }
        self.chargedForQueue = capacity
    }

    /// Moves the deadlines, because the link had no carrier for a while.
    mutating func postpone(by away: Milliseconds) {
        if case .awaitingAccept(let deadline) = self.opening {
            self.opening = .awaitingAccept(deadline: deadline + away)
        }
        self.lastActivity += away
        self.lastProgress += away
        if let since = self.resetStalledSince { self.resetStalledSince = since + away }
    }

    /// Since when bytes in either direction have waited without progress; nil if none wait.
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
