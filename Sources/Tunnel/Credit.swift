internal import Timing

/// Accounts for the bytes that peers may make us hold: granted and not yet written on.
///
/// One per link, with one per process as its parent. `used` may exceed `limit` by the floor window of each stream,
/// which is always granted so that no stream starves.
package final class ByteBudget {
    package let limit: Int
    package private(set) var used = 0
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
    private var lastGrant: Milliseconds
    /// The limit that the peer was last told.
    private(set) var announced: UInt64

    /// A stream whose first `window` bytes are granted; the caller has announced them.
    init(window: Int, budget: ByteBudget, now: Milliseconds) {
        self.limit = UInt64(window)
        self.window = window
        self.lastGrant = now
        self.announced = UInt64(window)
        budget.take(window)
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

    /// False when the peer sent past its limit.
    mutating func receive(_ count: Int) -> Bool {
        guard UInt64(count) <= self.limit - self.received else { return false }
        self.received += UInt64(count)
        return true
    }

    /// The driver has written `count` bytes on.
    mutating func consume(_ count: Int, budget: ByteBudget) {
        precondition(UInt64(count) <= self.pending, "more written on than had arrived")
        self.consumed += UInt64(count)
        budget.give(count)
    }

    /// Raises the limit if that is worth a frame: at least a quarter of the window has come free.
    ///
    /// The window doubles when half of it would be used up in less than two round trips, as then the window and not
    /// the backend is what slows the stream down; it shrinks when the budget is short.
    mutating func grant(limits: LinkLimits, budget: ByteBudget, roundTrip: Milliseconds, now: Milliseconds) -> Bool {
        let outstanding = Int(self.limit - self.consumed)
        guard self.window - outstanding >= self.window / 4 else { return false }
        var wanted = self.window
        let most = roundTrip == 0 ? limits.nearWindow : limits.mostWindow
        // A quarter of the window in one round trip is half of it in two.
        if now - self.lastGrant < max(roundTrip, 1), self.window < most { wanted = min(self.window * 2, most) }
        let available = budget.available
        if wanted > self.window, available < wanted - outstanding + budget.limit / 4 { wanted = self.window }
        if available < wanted - outstanding { wanted = min(wanted, limits.pressureWindow) }
        if available < wanted - outstanding { wanted = min(wanted, limits.floorWindow) }
        self.window = wanted
        self.lastGrant = now
        return self.extend(to: wanted, outstanding: outstanding, budget: budget)
    }

    /// Raises a promise made before the stream existed to the window that the budget allows.
    mutating func widen(to window: Int, budget: ByteBudget) {
        guard window > self.window else { return }
        self.window = window
        _ = self.extend(to: window, outstanding: Int(self.limit - self.consumed), budget: budget)
    }

    private mutating func extend(to window: Int, outstanding: Int, budget: ByteBudget) -> Bool {
        guard window > outstanding else { return false }
        budget.take(window - outstanding)
        self.limit += UInt64(window - outstanding)
        return true
    }

    /// The limit to tell the peer: never less than it was told before, though `close` may have taken ours back.
    mutating func announce() -> UInt64 {
        self.announced = max(self.announced, self.limit)
        return self.announced
    }

    /// The peer's direction has ended: what it did not use is free again.
    mutating func close(budget: ByteBudget) {
        budget.give(Int(self.limit - self.received))
        self.limit = self.received
    }

    /// Nothing that arrived will be written on any more.
    mutating func abandon(budget: ByteBudget) {
        budget.give(Int(self.limit - self.consumed))
        self.consumed = self.received
        self.limit = self.received
    }
}
