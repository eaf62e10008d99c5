internal import CUV

/// Watches a descriptor of another library for readability and writability (uv_poll_t). The owner of the descriptor
/// closes it, but only after ``close()``.
package final class DescriptorPoll: LoopHandle {
    package struct Events: OptionSet, Sendable {
        package let rawValue: Int32

        package init(rawValue: Int32) { self.rawValue = rawValue }

        package static let readable = Events(rawValue: CInt(UV_READABLE.rawValue))
        package static let writable = Events(rawValue: CInt(UV_WRITABLE.rawValue))
        /// The descriptor is in error (poll(2), POLLERR). Reported even if not requested. Ends the watch until the next
        /// call of ``watch(_:)``.
        package static let failed = Events(rawValue: 1 << 16)
    }

    private var raw: UnsafeMutablePointer<uv_poll_t> { self.memory.assumingMemoryBound(to: uv_poll_t.self) }
    private var body: ((Events) -> Void)?
    /// The events last passed to ``watch(_:)``.
    package private(set) var events: Events = []

    /// Makes an open descriptor non-blocking (uv_poll_init). No other handle on this loop may watch it.
    package init(loop: EventLoop, descriptor: Int32, _ body: @escaping (Events) -> Void) throws(UVError) {
        self.body = body
        super.init(loop: loop, uv_poll_t.self)
        try check(uv_poll_init(loop.raw, self.raw, descriptor))
        self.opened()
    }

    /// Calls the body repeatedly as long as one of `events` holds (level-triggered). An empty set pauses the watch.
    package func watch(_ events: Events) {
        guard self.isOpen else { return }
        self.events = events
        if events.isEmpty {
            uv_poll_stop(self.raw)
        } else {
            // uv_poll_start cannot fail on an open handle.
            uv_poll_start(self.raw, events.rawValue, onPoll)
        }
    }

    /// Ends the watch. The descriptor may be closed from now on.
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
