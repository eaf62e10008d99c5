internal import Timing

/// Counts the bytes that peers may make this process hold: granted but not yet written to an edge, or in send queues.
///
/// There is one per link, with one per process as its parent. `used` may exceed `limit`: every stream gets the floor
/// window and the smallest send queue, so that none starves.
package final class ByteBudget {
    package let limit: Int
    package private(set) var used = 0
    /// Bytes held by stalled streams. They count in the parent only, so stalled streams do not reduce the windows of
    /// the link's other streams.
    package private(set) var parked = 0
    private let parent: ByteBudget?

    package init(limit: Int, parent: ByteBudget? = nil) {
        self.limit = limit
        self.parent = parent
    }

    /// Bytes that can still be granted, here and in the parent.
    package var available: Int {
        let own = max(0, self.limit - self.used)
        guard let parent = self.parent else { return own }
        return min(own, parent.available)
    }

    /// Whether a quarter is left, here and in the parent.
    var isPlentiful: Bool {
        self.limit - self.used >= self.limit / 4 && self.parent?.isPlentiful ?? true
    }

    package func take(_ count: Int) {
        self.used += count
        self.parent?.take(count)
    }

    package func give(_ count: Int) {
        precondition(count <= self.used, "budget given back twice")
        self.used -= count
        self.parent?.give(count)
    }

    func park(_ count: Int) {
        precondition(count <= self.used, "more parked than taken")
        self.used -= count
        self.parked += count
    }

    func unpark(_ count: Int) {
        precondition(count <= self.parked, "more unparked than parked")
        self.parked -= count
        self.used += count
    }

    /// How much of the budget is left. Buffers shrink under pressure.
    enum Pressure { case none, some, full }

    var pressure: Pressure {
        let available = self.available
        return available >= self.limit / 2 ? .none : available > 0 ? .some : .full
    }
}

/// One buffer's share of a budget. It follows the buffer's size.
package struct BudgetShare {
    private let budget: ByteBudget?
    private var held = 0

    package init(_ budget: ByteBudget?) { self.budget = budget }

    /// Charges the budget for a buffer of `count` bytes. Call it with 0 when the buffer is gone.
    package mutating func set(_ count: Int) {
        if count > self.held { self.budget?.take(count - self.held) } else { self.budget?.give(self.held - count) }
        self.held = count
    }
}

/// What we may still send on a stream: the peer's absolute limit less the bytes sent.
struct SendCredit {
    private(set) var limit: UInt64
    private(set) var sent: UInt64 = 0

    init(limit: UInt64) { self.limit = limit }

    /// Bytes that may be sent now, clamped to `Int` because a peer may grant up to 2^64 - 1.
    var available: Int { Int(clamping: self.limit - self.sent) }

    mutating func send(_ count: Int) {
        precondition(count >= 0 && count <= self.available, "sending more than was granted")
        self.sent += UInt64(count)
    }

    /// Returns false if the peer lowers its limit, a violation.
    mutating func raise(to limit: UInt64) -> Bool {
        guard limit >= self.limit else { return false }
        self.limit = limit
        return true
    }
}

/// What we have granted to the peer on a stream, in bytes.
///
/// Invariant: `consumed <= received <= limit`. The budget is charged `limit - consumed` for a live stream, and
/// `received - consumed` after the peer's direction has ended.
struct ReceiveCredit {
    private(set) var limit: UInt64
    private(set) var received: UInt64 = 0
    private(set) var consumed: UInt64 = 0
    private(set) var window: Int
    /// Start of the interval in which `measured` bytes were consumed.
    private var measuredSince: Milliseconds
    private var measured = 0
    /// The window, not the edge, limits the stream's speed.
    private var isLimiting = false
    /// All bytes that the stream holds of the budget are parked.
    private var isParked = false
    /// The highest limit announced to the peer.
    private(set) var announced: UInt64

    /// Grants the first `window` bytes of a stream. The caller announces them to the peer.
    init(window: Int, budget: ByteBudget, now: Milliseconds) {
        self.limit = UInt64(window)
        self.window = window
        self.measuredSince = now
        self.announced = UInt64(window)
        budget.take(window)
    }

    private var held: Int { Int(self.limit - self.consumed) }

    /// Marks the stream as stalled: until it makes progress, other streams may use its part of the link's budget.
    mutating func park(budget: ByteBudget) {
        guard !self.isParked else { return }
        self.isParked = true
        budget.park(self.held)
    }

    private mutating func unpark(_ budget: ByteBudget) {
        guard self.isParked else { return }
        self.isParked = false
        budget.unpark(self.held)
    }

    /// The window of a new stream, smaller when the budget is short.
    static func startWindow(_ limits: LinkLimits, _ budget: ByteBudget) -> Int {
        let available = budget.available
        if available >= limits.startWindow, available >= budget.limit / 2 { return limits.startWindow }
        if available >= limits.pressureWindow { return min(limits.pressureWindow, limits.startWindow) }
        return min(limits.floorWindow, limits.startWindow)
    }

    /// Bytes received but not yet written to the edge.
    var pending: UInt64 { self.received - self.consumed }

    /// Bytes the peer may still send.
    var unused: Int { Int(clamping: self.limit - self.received) }

    /// Returns false if the peer sends beyond its limit, a violation.
    mutating func receive(_ count: Int) -> Bool {
        guard UInt64(count) <= self.limit - self.received else { return false }
        self.received += UInt64(count)
        return true
    }

    /// Call it when the driver has written `count` bytes to the edge.
    mutating func consume(_ count: Int, budget: ByteBudget, roundTrip: Milliseconds, now: Milliseconds) {
        precondition(UInt64(count) <= self.pending, "more written on than had arrived")
        self.unpark(budget)
        self.consumed += UInt64(count)
        budget.give(count)
        // Bytes are counted, not the time between grants: a sender that uses its window in one burst per round trip
        // uses it as fully as a steady sender.
        if now - self.measuredSince > 2 * max(roundTrip, 1) {
            self.measuredSince = now
            self.measured = 0
        }
        self.measured += count
        if self.measured >= self.window / 2 {
            self.isLimiting = true
            self.measuredSince = now
            self.measured = 0
        }
    }

    /// Raises the limit when that is worth a frame: a quarter of the window or `grantBytes`, whichever is less, is
    /// free. `grantBytes` keeps the unused part of a large window small.
    ///
    /// The window doubles when half of it was consumed within two round trips, because then it limits the stream's
    /// speed. It shrinks when the budget is short. Returns whether the limit was raised.
    mutating func grant(limits: LinkLimits, budget: ByteBudget, roundTrip: Milliseconds) -> Bool {
        self.unpark(budget)
        let outstanding = self.held
        guard self.window - outstanding >= min(self.window / 4, limits.grantBytes) else { return false }
        var wanted = self.window
        let largest = roundTrip == 0 ? limits.nearWindow : limits.maxWindow
        if self.isLimiting, self.window < largest { wanted = min(self.window * 2, largest) }
        let available = budget.available
        if wanted > self.window, available < wanted - outstanding + budget.limit / 4 { wanted = self.window }
        if available < wanted - outstanding { wanted = min(wanted, limits.pressureWindow) }
        if available < wanted - outstanding { wanted = min(wanted, limits.floorWindow) }
        self.window = wanted
        self.isLimiting = false
        return self.extend(to: wanted, outstanding: outstanding, budget: budget)
    }

    /// Raises the window promised in HELLO, before the stream existed, to the window that the budget allows.
    mutating func widen(to window: Int, budget: ByteBudget) {
        guard window > self.window else { return }
        self.unpark(budget)
        self.window = window
        _ = self.extend(to: window, outstanding: self.held, budget: budget)
    }

    private mutating func extend(to window: Int, outstanding: Int, budget: ByteBudget) -> Bool {
        guard window > outstanding else { return false }
        budget.take(window - outstanding)
        if self.isParked { budget.park(window - outstanding) }
        self.limit += UInt64(window - outstanding)
        return true
    }

    /// Grants the bytes freed since the last grant, if the budget allows. Call it before a WINDOW that is sent anyway.
    mutating func topUp(budget: ByteBudget) {
        let outstanding = self.held
        guard budget.available >= self.window - outstanding else { return }
        _ = self.extend(to: self.window, outstanding: outstanding, budget: budget)
    }

    /// The limit to send to the peer. It is never below an earlier one, even after `close` has lowered `limit`.
    mutating func announce() -> UInt64 {
        self.announced = max(self.announced, self.limit)
        return self.announced
    }

    /// The peer's direction has ended: returns the unused grant to the budget.
    mutating func close(budget: ByteBudget) {
        self.unpark(budget)
        budget.give(Int(self.limit - self.received))
        self.limit = self.received
    }

    /// Received bytes will not be written to the edge: returns everything to the budget.
    mutating func abandon(budget: ByteBudget) {
        self.unpark(budget)
        budget.give(self.held)
        self.consumed = self.received
        self.limit = self.received
    }
}
