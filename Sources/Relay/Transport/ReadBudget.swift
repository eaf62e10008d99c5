internal import Reactor
internal import Timing

/// Limits how many bytes of a link are read in one turn of the loop: as many as take about half a millisecond to
/// handle, estimated from previous reads.
///
/// The same number of bytes may be sixteen full frames or thirty thousand one-byte frames. Without a limit by cost, a
/// peer that sends tiny frames could delay all other links by tens of milliseconds. The limit is an estimate: a single
/// read may cost more, and the allowance then stays small for seconds.
struct ReadBudget {
    /// Costs in nanoseconds, measured on a 2 GHz core: per byte (decrypting and copying), per TLS record, per frame and
    /// per write to an edge.
    private static let byteCost = 1
    private static let recordCost = 1_000
    private static let frameCost = 800
    private static let edgeCost = 4_000
    static let turnCost = 500_000
    /// Minimum allowance in bytes whatever they cost, because each read itself has a cost.
    private static let least = 4 * 1024

    /// Maximum size of the next read in bytes. Small at first, until the peer's traffic is known.
    private(set) var allowance = 16 * 1024
    /// Upper limit of the allowance. A read that costs too much lowers it; after that it doubles every second.
    private var ceiling = EventLoop.readBufferSize
    private var raisedAt: Milliseconds = 0
    private static let raiseAfter: Milliseconds = 1_000

    /// Records the cost of a read that has been handled.
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
            // Only a read that used most of its allowance predicts the next one.
            self.allowance = min(fair, self.allowance * 2, self.ceiling)
        }
    }
}
