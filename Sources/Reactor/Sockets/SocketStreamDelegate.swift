/// Receives the events of a ``SocketStream``.
///
/// After `close()` or `reset()` only `socketStreamDidClose` arrives.
package protocol SocketStreamDelegate: AnyObject {
    /// Writing failed and the connection has ended, but bytes that the peer sent before may still be unread.
    ///
    /// Writes are dropped from now on. Keep reading, or call `startReading()` when there is room: `didFail` follows
    /// after everything has been read. The default implementation calls `didFail` at once.
    func socketStream(_ stream: SocketStream, didBreak error: UVError)
    /// The maximum size of the next read in bytes. After 0 the stream stops reading until `startReading()`.
    func readAllowance(_ stream: SocketStream) -> Int
    /// Bytes arrived. They are in the loop's shared buffer: use or copy them before returning.
    func socketStream(_ stream: SocketStream, didRead bytes: UnsafeRawBufferPointer)
    /// The peer will send no more.
    func socketStreamDidReachEnd(_ stream: SocketStream)
    /// The kernel took this many queued bytes.
    func socketStream(_ stream: SocketStream, didWrite count: Int)
    /// Reading or writing failed. Close or reset the stream.
    func socketStream(_ stream: SocketStream, didFail error: UVError)
    func socketStreamDidClose(_ stream: SocketStream)
}

extension SocketStreamDelegate {
    package func socketStream(_ stream: SocketStream, didBreak error: UVError) {
        self.socketStream(stream, didFail: error)
    }
}
