internal import Bytes
internal import Reactor

/// Buffers that all links of a loop share: each is empty again before another link uses it.
package final class RelayBuffers {
    /// Decrypted bytes of the batch that is being handled. A read of the socket, what OpenSSL held of a record that
    /// was not yet whole, and what was left of a frame fit in together.
    let plain: UnsafeMutableRawBufferPointer
    /// Reads of links whose handshake is not over, in this turn: each may cost a signature.
    private var handshakes: (turn: UInt64, count: Int) = (0, 0)
    /// About 2 ms of the processor. Others wait for the next turn, with those before the handshake and those after it.
    static let handshakesPerTurn = 4
    /// So many streams run that each gets little of the kernel's memory.
    package var isCrowded = false
    /// Encrypted bytes between OpenSSL and the socket.
    var cipher = ByteQueue()

    package init() {
        self.plain = .allocate(byteCount: EventLoop.readBufferSize + 4 * 16 * 1024, alignment: 64)
    }

    /// Whether a handshake may get ahead in this turn.
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
