internal import Bytes
internal import Reactor

/// Buffers shared by all links of a loop. A link empties them before another link uses them.
package final class RelayBuffers {
    /// Decrypted bytes of the current batch. Has room for one socket read, an incomplete record held by OpenSSL, and
    /// an incomplete frame.
    let plain: UnsafeMutableRawBufferPointer
    /// The number of reads in this turn on links that are still in the handshake. Each may cost a signature.
    private var handshakes: (turn: UInt64, count: Int) = (0, 0)
    /// About 2 ms of CPU time. Further handshakes wait for the next turn, so that connections in other phases are
    /// served in between.
    static let handshakesPerTurn = 4
    /// Whether so many streams are open that each gets only small kernel buffers.
    package var isCrowded = false
    /// Encrypted bytes between OpenSSL and the socket.
    var cipher = ByteQueue()
    /// Memory for outgoing frames.
    let blocks = BlockPool()
    let acknowledger = Acknowledger()

    package init() {
        self.plain = .allocate(byteCount: EventLoop.readBufferSize + 4 * 16 * 1024, alignment: 64)
    }

    /// Returns whether another handshake may proceed in this turn, and counts it.
    func takeHandshake(turn: UInt64) -> Bool {
        if self.handshakes.turn != turn { self.handshakes = (turn, 0) }
        guard self.handshakes.count < Self.handshakesPerTurn else { return false }
        self.handshakes.count += 1
        return true
    }

    deinit {
        self.plain.deallocate()
    }
}
