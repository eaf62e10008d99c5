internal import CUV

/// Calls a closure once after a delay, or periodically.
package final class LoopTimer: LoopHandle {
    private var raw: UnsafeMutablePointer<uv_timer_t> { self.memory.assumingMemoryBound(to: uv_timer_t.self) }
    private var body: (() -> Void)?

    /// - Parameter keepsLoopAlive: whether a running timer alone keeps ``EventLoop/run()`` from returning.
    package init(loop: EventLoop, keepsLoopAlive: Bool = true, _ body: @escaping () -> Void) {
        self.body = body
        super.init(loop: loop, uv_timer_t.self)
        // uv_timer_init cannot fail on an initialised loop.
        uv_timer_init(loop.raw, self.raw)
        self.opened()
        if !keepsLoopAlive { uv_unref(cuv_handle(self.memory)) }
    }

    /// Starts or restarts the timer. It fires after `milliseconds`, and then every `repeating` milliseconds unless that
    /// is 0.
    package func start(after milliseconds: UInt64, repeating: UInt64 = 0) {
        self.loop.assertOnLoop()
        guard self.isOpen else { return }
        // The loop's clock does not advance during a turn, but the delay starts now.
        uv_update_time(self.loop.raw)
        uv_timer_start(self.raw, onTimer, milliseconds, repeating)
    }

    package func stop() {
        guard self.isOpen else { return }
        uv_timer_stop(self.raw)
    }

    package func close() {
        self.body = nil
        self.closeHandle()
    }

    fileprivate func fire() {
        guard self.isOpen else { return }
        self.body?()
    }
}

private let onTimer: uv_timer_cb = { handle in
    borrow(handle?.pointee.data) { (timer: LoopTimer) in timer.fire() }
}
