/// What this end has handled of the peer's counted frames, and what it has reported of it.
struct Acknowledgements {
    /// Bytes of counted frames that the link has parsed.
    var handled: UInt64 = 0
    /// The value of the last ACK, RESUME or RESUMED.
    private(set) var reported: UInt64 = 0
    /// An ACK is due after this many bytes.
    private let interval: UInt64
    private var isRequested = false

    /// - Parameter interval: in bytes.
    init(interval: Int) { self.interval = UInt64(interval) }

    var isOwed: Bool { self.handled > self.reported }

    var isDue: Bool { self.isOwed && (self.isRequested || self.handled - self.reported >= self.interval) }

    /// Whether an ACK is worth its bytes in a record that is sent anyway. It then saves a record of its own.
    var isWorthwhile: Bool { self.handled - self.reported >= self.interval / 4 }

    /// An ACK of what is handled does not wait for more bytes.
    mutating func request() { self.isRequested = self.isOwed }

    /// The handled bytes are reported now.
    mutating func report() -> UInt64 {
        self.reported = self.handled
        self.isRequested = false
        return self.handled
    }
}

/// How many bytes a session keeps until the peer acknowledges them.
///
/// The bound doubles if it limits a fast path: if sending stopped because of it, and one bound's worth was acknowledged
/// within two round trips and 50 ms.
struct KeepBound {
    private(set) var bytes: Int
    private let max: Int
    /// Whether the bound has stopped sending since the measurement began.
    private var hasLimited = false
    private var measuredFrom: UInt64 = 0
    private var measuredSince: UInt64 = 0

    private static let graceMilliseconds: UInt64 = 50

    init(first: Int, max: Int) {
        self.bytes = first
        self.max = Swift.max(first, max)
    }

    /// Sending stops here although the socket would take more.
    ///
    /// - Returns: whether this is news, and the bound cannot grow.
    mutating func limited() -> Bool {
        defer { self.hasLimited = true }
        return !self.hasLimited && self.bytes == self.max
    }

    /// - Parameters:
    ///   - available: bytes that the budgets still allow.
    mutating func acknowledged(_ position: UInt64, roundTrip: UInt64, available: Int, now: UInt64) {
        guard position - self.measuredFrom >= UInt64(self.bytes) else { return }
        let isFast = now - self.measuredSince <= 2 * roundTrip + Self.graceMilliseconds
        if self.hasLimited, isFast, available >= self.bytes { self.bytes = Swift.min(self.bytes * 2, self.max) }
        self.begin(position, now: now)
    }

    /// Begins a measurement.
    mutating func begin(_ position: UInt64, now: UInt64) {
        self.measuredFrom = position
        self.measuredSince = now
        self.hasLimited = false
    }
}
