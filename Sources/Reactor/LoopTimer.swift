internal import CUV

/// Calls a closure once after a span, or again and again.
///
/// The lifetime is that of every handle (see ``SocketStream``): retained from `init` to the close callback.
package final class LoopTimer {
    private let loop: EventLoop
    private let raw: UnsafeMutablePointer<uv_timer_t>
    private var isOpen = true
    private var isClosed = false
    private var body: (() -> Void)?

    /// - Parameter keepsLoopAlive: whether a started timer alone makes ``EventLoop/run()`` go on.
    package init(loop: EventLoop, keepsLoopAlive: Bool = true, _ body: @escaping () -> Void) {
        self.loop = loop
        self.raw = .allocate(capacity: 1)
        self.body = body
        // uv_timer_init has no error on an initialised loop.
        uv_timer_init(loop.raw, self.raw)
        self.raw.pointee.data = Unmanaged.passRetained(self).toOpaque()
        if !keepsLoopAlive { uv_unref(cuv_handle_of_timer(self.raw)) }
    }

    deinit {
        precondition(self.isClosed, "a timer was dropped before its close callback")
    }

    /// Starts or restarts: once after `milliseconds`, and then every `repeating` milliseconds unless that is 0.
    package func start(after milliseconds: UInt64, repeating: UInt64 = 0) {
        self.loop.assertOnLoop()
        guard self.isOpen else { return }
        // The loop's clock stands still during a turn; a span counts from now.
        uv_update_time(self.loop.raw)
        uv_timer_start(self.raw, onTimer, milliseconds, repeating)
    }

    package func stop() {
        guard self.isOpen else { return }
        uv_timer_stop(self.raw)
    }

    package func close() {
        guard self.isOpen else { return }
        self.isOpen = false
        self.body = nil
        uv_close(cuv_handle_of_timer(self.raw), onClose)
    }

    fileprivate func fire() {
        guard self.isOpen else { return }
        self.body?()
    }

    fileprivate func didClose() {
        self.raw.deallocate()
        self.isClosed = true
    }
}

private let onTimer: uv_timer_cb = { handle in
    guard let data = handle?.pointee.data else { return }
    Unmanaged<LoopTimer>.fromOpaque(data)._withUnsafeGuaranteedRef { $0.fire() }
}

private let onClose: uv_close_cb = { handle in
    guard let data = handle?.pointee.data else { return }
    Unmanaged<LoopTimer>.fromOpaque(data).takeRetainedValue().didClose()
}
