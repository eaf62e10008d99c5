internal import Reactor
internal import Timing

/// How many bytes of a link are read in one turn of the loop: as many as take about half a millisecond, estimated from
/// the previous reads.
///
/// The same number of bytes may be sixteen full frames or thirty thousand of one byte. Without a bound by cost, a peer
/// that sends the latter delays the bytes of all other links by tens of milliseconds. The bound is a forecast: one read
/// may cost more, and after that the allowance stays small for seconds.
struct ReadBudget {
    /// What was measured on one core of 2 GHz, in nanoseconds: of a byte (decrypting and copying), a TLS record, a frame
    /// and a write to an edge.
    private static let byteCost = 1
    private static let recordCost = 1_000
    private static let frameCost = 800
    private static let edgeCost = 4_000
    static let turnCost = 500_000
    /// Bytes that are read whatever they cost, as each read has a cost of its own.
    private static let least = 4 * 1024

    /// Bytes that the next read may bring. Few at first, until the peer's traffic is known.
    private(set) var allowance = 16 * 1024
    /// Up to which the allowance may grow: lowered by a read that cost too much, and doubled each second after that.
    private var ceiling = EventLoop.readBufferSize
    private var raisedAt: Milliseconds = 0
    private static let raiseAfter: Milliseconds = 1_000

    /// A read has been handled.
    mutating func spent(bytes: Int, records: Int, frames: Int, edges: Int, now: Milliseconds) {
        guard bytes > 0 else { return }
        let cost =
            bytes * Self.byteCost + records * Self.recordCost + frames * Self.frameCost + edges * Self.edgeCost
        let fair = max(bytes * Self.turnCost / cost, Self.least)
        if cost > Self.turnCost {
            self.allowance = min(fair, self.allowance)
            self.ceiling = self.allowance
            self.raisedAt = now
            return
        }
        if self.ceiling < EventLoop.readBufferSize, now - self.raisedAt >= Self.raiseAfter {
            self.ceiling = min(self.ceiling * 2, EventLoop.readBufferSize)
            self.raisedAt = now
        }
        if bytes * 2 > self.allowance {
            // Only a read that used most of its allowance says something about the next one.
            self.allowance = min(fair, self.allowance * 2, self.ceiling)
        }
    }
}
