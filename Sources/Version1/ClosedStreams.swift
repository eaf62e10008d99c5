internal import Timing
internal import Tunnel

/// Streams that the agent has just closed. The gateway may have sent more of their bytes before it read the Close.
///
/// Such late bytes must not open a new stream: they would reach the backend on a new connection, and a request that the
/// visitor has given up, and perhaps repeated, would be carried out.
struct ClosedStreams {
    private let span: Milliseconds
    private let maxCount: Int
    private var expiries: [UInt32: Milliseconds] = [:]
    private var order = Ring<(id: UInt32, expiry: Milliseconds)>()

    init(span: Milliseconds, atMost: Int) {
        self.span = span
        self.maxCount = atMost
    }

    mutating func insert(_ id: UInt32, now: Milliseconds) {
        self.expiries[id] = now + self.span
        self.order.append((id, now + self.span))
        while let first = self.order.first, first.expiry <= now || self.order.count > self.maxCount {
            _ = self.order.popFirst()
            if self.expiries[first.id] == first.expiry { self.expiries[first.id] = nil }
        }
    }

    /// The gateway has closed the stream too, so nothing more of it can arrive.
    mutating func remove(_ id: UInt32) { self.expiries[id] = nil }

    /// Whether bytes with this id are late. Each late piece extends the time.
    mutating func holds(_ id: UInt32, now: Milliseconds) -> Bool {
        guard let expiry = self.expiries[id], now < expiry else { return false }
        self.insert(id, now: now)
        return true
    }
}
