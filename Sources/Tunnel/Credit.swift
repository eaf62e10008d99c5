internal import Timing

/// Accounts for the bytes that peers may make us hold: granted and not yet written on, or waiting to be sent.
///
/// One per link, with one per process as its parent. `used` may exceed `limit` by the floor window and the smallest send
/// queue of each stream, which it always gets so that none starves.
package final class ByteBudget {
    package let limit: Int
    package private(set) var used = 0
    /// Bytes that stalled streams hold. They count in the parent only, so that the stalled streams of a link do not
    /// reduce the windows of its other streams.
    package private(set) var parked = 0
    private let parent: ByteBudget?

    package init(limit: Int, parent: ByteBudget? = nil) {
        self.limit = limit
        self.parent = parent
    }

    /// Bytes that can still be granted here and in the parent.
    package var available: Int {
        let own = max(0, self.limit - self.used)
        guard let parent = self.parent else { return own }
        return min(own, parent.available)
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

    /// How much of it is left, for those that hold less under pressure.
    enum Pressure { case none, some, full }

    var pressure: Pressure {
        let available = self.available
        return available >= self.limit / 2 ? .none : available > 0 ? .some : .full
    }
}

/// The part of a budget that a buffer has, whose size changes.
package struct BudgetShare {
    private let budget: ByteBudget?
    private var held = 0

    package init(_ budget: ByteBudget?) { self.budget = budget }

    /// The buffer holds so many bytes now; 0 at its end.
    package mutating func set(_ count: Int) {
        if count > self.held { self.budget?.take(count - self.held) } else { self.budget?.give(self.held - count) }
        self.held = count
    }
}

/// What we may still send on a stream: the peer's absolute limit against what has been sent.
struct SendCredit {
    private(set) var limit: UInt64
    private(set) var sent: UInt64 = 0

    init(limit: UInt64) { self.limit = limit }

    /// Bytes that may be sent now, as an `Int` that cannot trap however large the peer's limit is.
    var available: Int { Int(clamping: self.limit - self.sent) }

    mutating func send(_ count: Int) {
        precondition(count >= 0 && count <= self.available, "sending more than was granted")
        self.sent += UInt64(count)
    }

    /// False when the peer takes back what it had granted.
    mutating func raise(to limit: UInt64) -> Bool {
        guard limit >= self.limit else { return false }
        self.limit = limit
        return true
    }
}

/// What we have granted on a stream.
///
/// Invariant: `consumed <= received <= limit`. The budget holds `limit - consumed` for a live stream, and
/// `received - consumed` once the peer's direction has ended.
struct ReceiveCredit {
    private(set) var limit: UInt64
    private(set) var received: UInt64 = 0
    private(set) var consumed: UInt64 = 0
    private(set) var window: Int
    /// Since when `measured` bytes were consumed.
    private var measuredSince: Milliseconds
    private var measured = 0
    /// The window, and not the backend, is what slows the stream down.
    private var isLimiting = false
    /// What it holds of the budget is parked, all of it.
    private var isParked = false
    /// The limit that the peer was last told.
    private(set) var announced: UInt64

    /// A stream whose first `window` bytes are granted; the caller has announced them.
    init(window: Int, budget: ByteBudget, now: Milliseconds) {
        self.limit = UInt64(window)
        self.window = window
        self.measuredSince = now
        self.announced = UInt64(window)
        budget.take(window)
    }

    private var held: Int { Int(self.limit - self.consumed) }

    /// The stream is stalled: until it makes progress, other streams may use its part of the link's budget.
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

    /// The window that the budget allows for a new stream.
    static func startWindow(_ limits: LinkLimits, _ budget: ByteBudget) -> Int {
        let available = budget.available
        if available >= limits.startWindow, available >= budget.limit / 2 { return limits.startWindow }
        if available >= limits.pressureWindow { return min(limits.pressureWindow, limits.startWindow) }
        return min(limits.floorWindow, limits.startWindow)
    }

    /// Bytes that arrived and were not yet written on.
    var pending: UInt64 { self.received - self.consumed }

    /// Bytes that the peer may still send.
    var unused: Int { Int(clamping: self.limit - self.received) }

    /// False when the peer sent past its limit.
    mutating func receive(_ count: Int) -> Bool {
        guard UInt64(count) <= self.limit - self.received else { return false }
        self.received += UInt64(count)
        return true
    }

    /// The driver has written `count` bytes on.
    mutating func consume(_ count: Int, budget: ByteBudget, roundTrip: Milliseconds, now: Milliseconds) {
        precondition(UInt64(count) <= self.pending, "more written on than had arrived")
        self.unpark(budget)
        self.consumed += UInt64(count)
        budget.give(count)
        // By bytes, not by the time between grants: a window that comes and goes in one burst each round trip is used
        // up as well as one that comes in pieces.
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

    /// Raises the limit if that is worth a frame: a quarter of the window has come free, or `grantBytes`, so that of a
    /// large window little is unused.
    ///
    /// The window doubles when half of it was used up within two round trips, as then the window and not the backend
    /// is what slows the stream down; it shrinks when the budget is short.
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

    /// Raises a promise made before the stream existed to the window that the budget allows.
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

    /// Grants what has come free since the last grant; for when a frame is sent anyway.
    mutating func topUp(budget: ByteBudget) {
        let outstanding = self.held
        guard budget.available >= self.window - outstanding else { return }
        _ = self.extend(to: self.window, outstanding: outstanding, budget: budget)
    }

    /// The limit to tell the peer: never less than it was told before, though `close` may have taken ours back.
    mutating func announce() -> UInt64 {
        self.announced = max(self.announced, self.limit)
        return self.announced
    }

    /// The peer's direction has ended: what it did not use is free again.
    mutating func close(budget: ByteBudget) {
        self.unpark(budget)
        budget.give(Int(self.limit - self.received))
        self.limit = self.received
    }

    /// Nothing that arrived will be written on any more.
    mutating func abandon(budget: ByteBudget) {
        self.unpark(budget)
        budget.give(self.held)
        self.consumed = self.received
        self.limit = self.received
    }
}
