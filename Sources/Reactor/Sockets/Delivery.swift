internal import CUV

/// Waits until the peer of a stream has acknowledged everything, to reset the stream then.
///
/// A TCP reset drops what the kernel still holds, and a peer takes one only with the number that it expects next
/// (RFC 5961, 3.2). So bytes that are to arrive before a reset must have been acknowledged before it is sent, and the
/// kernel tells of that only when it is asked.
final class Delivery {
    /// Between two looks at what is unacknowledged: short at first, as most peers acknowledge at once.
    private static let firstPause: UInt64 = 1
    private static let longestPause: UInt64 = 100

    let timer: LoopTimer
    private let patience: UInt64
    private var pause = Delivery.firstPause
    private var remaining = Int.max
    private var progressAt: UInt64

    /// - Parameter patience: milliseconds without progress after which the wait is over.
    init(_ stream: SocketStream, patience: UInt64) {
        self.patience = patience
        self.progressAt = stream.loop.now
        // The stream outlives the timer, which it closes when it is torn down.
        self.timer = LoopTimer(loop: stream.loop) { [unowned stream] in stream.checkDelivery() }
    }

    func close() { self.timer.close() }

    /// Whether to wait on, with `count` bytes that the peer has not acknowledged.
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
    /// Resets the connection after everything that was written has reached the peer, or has not got ahead for
    /// `patience` milliseconds. Nothing more is read or written; `didWrite` and `socketStreamDidClose` still arrive.
    ///
    /// A unix socket is closed when its kernel has all bytes, which then keeps them for the peer.
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
