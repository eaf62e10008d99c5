/// Receives the events of a ``SocketStream``.
///
/// Nothing but `socketStreamDidClose` arrives after `close()` or `reset()`.
package protocol SocketStreamDelegate: AnyObject {
    /// Writing failed and the connection is over, but bytes that the peer sent before may still be unread.
    ///
    /// Writes are dropped from here on. Keep reading, or call `startReading()` once there is room: `didFail` follows
    /// when everything has been read. The default fails at once.
    func socketStream(_ stream: SocketStream, didBreak error: UVError)
    /// How many bytes the next read may bring; with 0 the stream stops reading until `startReading()`.
    func readAllowance(_ stream: SocketStream) -> Int
    /// Bytes have come. They lie in the loop's shared buffer: use or copy them before returning.
    func socketStream(_ stream: SocketStream, didRead bytes: UnsafeRawBufferPointer)
    /// The peer will send no more.
    func socketStreamDidReachEnd(_ stream: SocketStream)
    /// Queued bytes were handed to the kernel.
    func socketStream(_ stream: SocketStream, didWrite count: Int)
    /// Reading or writing failed; close or reset the stream.
    func socketStream(_ stream: SocketStream, didFail error: UVError)
    func socketStreamDidClose(_ stream: SocketStream)
}

extension SocketStreamDelegate {
    package func socketStream(_ stream: SocketStream, didBreak error: UVError) {
        self.socketStream(stream, didFail: error)
    }
}
