internal import CUV

/// Waits until the peer of a stream has acknowledged all bytes before the stream is reset.
///
/// A TCP reset drops the bytes that the kernel still holds, and a peer accepts a reset only with the sequence number it
/// expects next (RFC 5961, 3.2). So all bytes must be acknowledged before the reset is sent. The kernel does not signal
/// that, so it must be polled.
final class Delivery {
    /// Poll interval in milliseconds. It starts short because most peers acknowledge at once, and doubles each time.
    private static let firstPause: UInt64 = 1
    private static let longestPause: UInt64 = 100

    let timer: LoopTimer
    private let patience: UInt64
    private var pause = Delivery.firstPause
    private var remaining = Int.max
    private var progressAt: UInt64

    /// - Parameter patience: how many milliseconds to wait without progress.
    init(_ stream: SocketStream, patience: UInt64) {
        self.patience = patience
        self.progressAt = stream.loop.now
        // The stream outlives the timer: it closes the timer in its own tear-down.
        self.timer = LoopTimer(loop: stream.loop) { [unowned stream] in stream.checkDelivery() }
    }

    func close() { self.timer.close() }

    /// Returns whether to keep waiting, and restarts the timer if so.
    ///
    /// - Parameter count: the number of bytes that the peer has not acknowledged.
    func mustWait(for count: Int, now: UInt64) -> Bool {
        if count < self.remaining {
            self.remaining = count
            self.progressAt = now
        }
        guard count > 0, now - self.progressAt < self.patience else { return false }
        self.timer.start(after: self.pause)
        self.pause = min(self.pause * 2, Self.longestPause)
        return true
    }
}

extension SocketStream {
    /// Resets the connection when the peer has acknowledged all written bytes, or after `patience` milliseconds without
    /// progress. The stream neither reads nor accepts writes from now on. `didWrite` and `socketStreamDidClose` still
    /// arrive.
    ///
    /// A unix socket is closed when the kernel has taken all bytes; the kernel keeps them for the peer.
    package func resetWhenDelivered(patience: UInt64) {
        guard self.isOpen, self.delivery == nil else { return }
        guard !self.isBroken else { return self.reset() }
        self.stopReading()
        self.delivery = Delivery(self, patience: patience)
        self.checkDelivery()
    }

    func checkDelivery() {
        guard self.isOpen, let delivery = self.delivery else { return }
        var isOver = false
        if self.isTCP { self.withDescriptor { isOver = cuv_is_closed($0) != 0 } }
        guard !isOver else { return self.reset() }
        let count = self.queuedByteCount + self.unacknowledgedByteCount
        guard !delivery.mustWait(for: count, now: self.loop.now) else { return }
        self.hasGivenUpDelivery = count > 0
        self.reset()
    }
}
