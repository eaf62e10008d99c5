internal import Bytes
internal import Reactor

/// Buffers that all links of a loop share: each is empty again before another link uses it.
package final class RelayBuffers {
    /// Decrypted bytes of the batch that is being handled. A read of the socket, what OpenSSL held of a record that
    /// was not yet whole, and what was left of a frame fit in together.
    let plain: UnsafeMutableRawBufferPointer
    /// Encrypted bytes between OpenSSL and the socket.
    var cipher = ByteQueue()

    package init() {
        self.plain = .allocate(byteCount: EventLoop.readBufferSize + 4 * 16 * 1024, alignment: 64)
    }

    deinit {
        self.plain.deallocate()
    }
}
