internal import CUV

/// A libuv handle, as the object that uses it.
///
/// ## Lifetime
/// ``opened()`` makes the handle point to this object with one retained reference, and the close callback takes it back:
/// the object lives at least from `uv_*_init` to that callback. The other callbacks borrow that
/// reference (``borrow(_:_:)``). That is sound because `uv_close` is asynchronous: a
/// callback may close the handle and drop the last other reference; the retained one lasts until the close callback, in a
/// later phase of the turn. `deinit` traps when the handle is open, and frees its memory.
package class LoopHandle {
    private enum Phase { case unborn, open, closing, closed }

    package final let loop: EventLoop
    /// libuv's handle.
    final let memory: UnsafeMutableRawPointer
    private final var phase = Phase.unborn

    /// Allocates a handle of this type, for the subclass to initialise.
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

    /// Call it when libuv has initialised the handle. From now on the handle must be closed.
    final func opened() {
        cuv_handle(self.memory).pointee.data = Unmanaged.passRetained(self).toOpaque()
        self.phase = .open
    }

    /// Closes the handle once. Only the close callback follows.
    final func closeHandle() {
        guard self.phase == .open else { return }
        self.phase = .closing
        uv_close(cuv_handle(self.memory), onClose)
    }

    /// The close callback. For subclasses.
    func didClose() {}

    fileprivate final func closed() {
        self.phase = .closed
        self.didClose()
    }
}

/// Calls `body` with the object of a handle, in one of the handle's callbacks.
///
/// - Parameter data: of the handle.
func borrow<Handle: LoopHandle>(_ data: UnsafeMutableRawPointer?, _ body: (Handle) -> Void) {
    guard let data else { return }
    Unmanaged<Handle>.fromOpaque(data)._withUnsafeGuaranteedRef(body)
}

private let onClose: uv_close_cb = { handle in
    guard let data = handle?.pointee.data else { return }
    // Balances the passRetained in `opened()`.
    Unmanaged<LoopHandle>.fromOpaque(data).takeRetainedValue().closed()
}
