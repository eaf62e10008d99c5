internal import CUV

/// Base class of objects that own a libuv handle.
///
/// ## Lifetime
/// ``opened()`` stores a retained reference to this object in the handle, and the close callback releases it. So the
/// object lives at least from `uv_*_init` to that callback. All other callbacks borrow the reference
/// (``borrow(_:_:)``). This is safe because `uv_close` is asynchronous: if a callback closes the handle and drops the
/// last other reference, the retained one lasts until the close callback, in a later phase of the turn. `deinit` frees
/// the handle's memory, and traps if the handle was not closed.
package class LoopHandle {
    private enum Phase { case unborn, open, closing, closed }

    package final let loop: EventLoop
    /// The memory of libuv's handle.
    final let memory: UnsafeMutableRawPointer
    private final var phase = Phase.unborn

    /// Allocates a handle of this type. The subclass initialises it.
    init<Raw>(loop: EventLoop, _ type: Raw.Type) {
        self.loop = loop
        self.memory = UnsafeMutableRawPointer(UnsafeMutablePointer<Raw>.allocate(capacity: 1))
    }

    deinit {
        precondition(
            self.phase == .unborn || self.phase == .closed, "a \(Self.self) was dropped before its close callback")
        self.memory.deallocate()
    }

    package final var isOpen: Bool { self.phase == .open }

    /// Call it after libuv has initialised the handle. From now on the handle must be closed.
    final func opened() {
        cuv_handle(self.memory).pointee.data = Unmanaged.passRetained(self).toOpaque()
        self.phase = .open
    }

    /// Closes the handle; further calls do nothing. Only the close callback follows.
    final func closeHandle() {
        guard self.phase == .open else { return }
        self.phase = .closing
        uv_close(cuv_handle(self.memory), onClose)
    }

    /// Called after the handle was closed. Subclasses override it.
    func didClose() {}

    fileprivate final func closed() {
        self.phase = .closed
        self.didClose()
    }
}

/// Calls `body` with the object of a handle. Only for callbacks of that handle.
///
/// - Parameter data: the handle's `data` field.
func borrow<Handle: LoopHandle>(_ data: UnsafeMutableRawPointer?, _ body: (Handle) -> Void) {
    guard let data else { return }
    Unmanaged<Handle>.fromOpaque(data)._withUnsafeGuaranteedRef(body)
}

private let onClose: uv_close_cb = { handle in
    guard let data = handle?.pointee.data else { return }
    // Balances the passRetained in `opened()`.
    Unmanaged<LoopHandle>.fromOpaque(data).takeRetainedValue().closed()
}
