internal import CUV

/// Tells when a descriptor that belongs to another library can be read or written (uv_poll_t). Whoever owns the
/// descriptor closes it, and not before ``close()``.
///
/// The lifetime is that of every handle (see ``SocketStream``): retained from `init` to the close callback.
package final class DescriptorPoll {
    package struct Events: OptionSet, Sendable {
        package let rawValue: Int32

        package init(rawValue: Int32) { self.rawValue = rawValue }

        package static let readable = Events(rawValue: CInt(UV_READABLE.rawValue))
        package static let writable = Events(rawValue: CInt(UV_WRITABLE.rawValue))
        /// Comes unasked, and ends the watch: the descriptor is in error (poll(2), POLLERR). ``watch(_:)`` goes on.
        package static let failed = Events(rawValue: 1 << 16)
    }

    private let raw: UnsafeMutablePointer<uv_poll_t>
    private var isOpen = true
    private var isClosed = false
    private var body: ((Events) -> Void)?
    /// What was asked for.
    package private(set) var events: Events = []

    /// Takes an open descriptor that nothing else on this loop watches, and makes it non-blocking (uv_poll_init).
    package init(loop: EventLoop, descriptor: Int32, _ body: @escaping (Events) -> Void) throws(UVError) {
        self.raw = .allocate(capacity: 1)
        self.body = body
        do throws(UVError) { try check(uv_poll_init(loop.raw, self.raw, descriptor)) } catch {
            self.raw.deallocate()
            self.isClosed = true
            throw error
        }
        self.raw.pointee.data = Unmanaged.passRetained(self).toOpaque()
    }

    deinit {
        precondition(self.isClosed, "a descriptor's poll was dropped before its close callback")
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
        guard self.isOpen else { return }
        self.isOpen = false
        self.body = nil
        uv_close(cuv_handle_of_poll(self.raw), onClose)
    }

    fileprivate func fire(_ status: CInt, _ events: CInt) {
        guard self.isOpen else { return }
        self.body?(status == 0 ? Events(rawValue: events) : .failed)
    }

    fileprivate func didClose() {
        self.raw.deallocate()
        self.isClosed = true
    }
}

private let onPoll: uv_poll_cb = { handle, status, events in
    guard let data = handle?.pointee.data else { return }
    Unmanaged<DescriptorPoll>.fromOpaque(data)._withUnsafeGuaranteedRef { $0.fire(status, events) }
}

private let onClose: uv_close_cb = { handle in
    guard let data = handle?.pointee.data else { return }
    Unmanaged<DescriptorPoll>.fromOpaque(data).takeRetainedValue().didClose()
}
