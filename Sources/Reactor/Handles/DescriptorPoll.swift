internal import CUV

/// Tells when a descriptor that belongs to another library can be read or written (uv_poll_t). Whoever owns the
/// descriptor closes it, and not before ``close()``.
package final class DescriptorPoll: LoopHandle {
    package struct Events: OptionSet, Sendable {
        package let rawValue: Int32

        package init(rawValue: Int32) { self.rawValue = rawValue }

        package static let readable = Events(rawValue: CInt(UV_READABLE.rawValue))
        package static let writable = Events(rawValue: CInt(UV_WRITABLE.rawValue))
        /// Comes unasked, and ends the watch: the descriptor is in error (poll(2), POLLERR). ``watch(_:)`` goes on.
        package static let failed = Events(rawValue: 1 << 16)
    }

    private var raw: UnsafeMutablePointer<uv_poll_t> { self.memory.assumingMemoryBound(to: uv_poll_t.self) }
    private var body: ((Events) -> Void)?
    /// What was asked for.
    package private(set) var events: Events = []

    /// Takes an open descriptor that nothing else on this loop watches, and makes it non-blocking (uv_poll_init).
    package init(loop: EventLoop, descriptor: Int32, _ body: @escaping (Events) -> Void) throws(UVError) {
        self.body = body
        super.init(loop: loop, uv_poll_t.self)
        try check(uv_poll_init(loop.raw, self.raw, descriptor))
        self.opened()
    }

    /// Calls the body, again and again, while one of `events` holds; with none it rests.
    package func watch(_ events: Events) {
        guard self.isOpen else { return }
        self.events = events
        if events.isEmpty {
            uv_poll_stop(self.raw)
        } else {
            // It has no error for a handle that is open (uv_poll_start).
            uv_poll_start(self.raw, events.rawValue, onPoll)
        }
    }

    /// From here on the descriptor is not touched any more and may be closed.
    package func close() {
        self.body = nil
        self.closeHandle()
    }

    fileprivate func fire(_ status: CInt, _ events: CInt) {
        guard self.isOpen else { return }
        self.body?(status == 0 ? Events(rawValue: events) : .failed)
    }
}

private let onPoll: uv_poll_cb = { handle, status, events in
    borrow(handle?.pointee.data) { (poll: DescriptorPoll) in poll.fire(status, events) }
}
