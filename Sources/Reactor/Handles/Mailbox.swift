internal import CUV
import Synchronization

/// Receives messages from other threads on the loop, in the order in which they were posted.
///
/// The mailbox belongs to the loop's thread. Other threads use its ``Sender``.
package final class Mailbox<Message: Sendable>: WakeHandle {
    /// Sends messages to a mailbox, from any thread.
    package final class Sender: Sendable {
        fileprivate struct State {
            var messages: [Message] = []
            /// Nil if the mailbox is closed.
            var handle: UnsafeMutablePointer<uv_async_t>?
        }

        fileprivate let state = Mutex(State())

        fileprivate init() {}

        /// Queues a message. Returns false if the mailbox is closed.
        @discardableResult
        package func post(_ message: Message) -> Bool {
            self.state.withLock { state in
                guard let handle = state.handle else { return false }
                state.messages.append(message)
                // Thread-safe (libuv, "uv_async_t").
                uv_async_send(handle)
                return true
            }
        }
    }

    package let sender = Sender()
    private var body: ((Message) -> Void)?

    package init(loop: EventLoop, _ body: @escaping (Message) -> Void) throws(UVError) {
        self.body = body
        try super.init(loop: loop)
        let handle = UInt(bitPattern: self.raw)
        self.sender.state.withLock { $0.handle = UnsafeMutablePointer(bitPattern: handle) }
    }

    /// Drops undelivered messages and rejects further ones.
    package func close() {
        // First, so that no thread calls uv_async_send on a closing handle.
        self.sender.state.withLock { $0.handle = nil }
        self.body = nil
        self.closeHandle()
    }

    override func woken() {
        let messages = self.sender.state.withLock { state in
            defer { state.messages.removeAll() }
            return state.messages
        }
        for message in messages { self.body?(message) }
    }
}

/// The part of a mailbox that does not depend on its message type, for the C callback.
package class WakeHandle: LoopHandle {
    fileprivate var raw: UnsafeMutablePointer<uv_async_t> { self.memory.assumingMemoryBound(to: uv_async_t.self) }

    fileprivate init(loop: EventLoop) throws(UVError) {
        super.init(loop: loop, uv_async_t.self)
        try check(uv_async_init(loop.raw, self.raw, onAsync))
        self.opened()
    }

    /// Called after one or more calls of uv_async_send.
    func woken() {}
}

private let onAsync: uv_async_cb = { handle in
    borrow(handle?.pointee.data) { (handle: WakeHandle) in handle.woken() }
}
