internal import CUV
import Synchronization

/// Receives messages from other threads on the loop, in their order.
///
/// The mailbox belongs to the loop's thread. Other threads have its ``Sender``.
package final class Mailbox<Message: Sendable> {
    /// Sends messages to a mailbox, from any thread.
    package final class Sender: Sendable {
        fileprivate struct State {
            var messages: [Message] = []
            /// Nil when the mailbox is closed.
            var handle: UnsafeMutablePointer<uv_async_t>?
        }

        fileprivate let state = Mutex(State())

        fileprivate init() {}

        /// False when the mailbox is closed.
        @discardableResult
        package func post(_ message: Message) -> Bool {
            self.state.withLock { state in
                guard let handle = state.handle else { return false }
                state.messages.append(message)
                // Any thread may call it (libuv, "uv_async_t").
                uv_async_send(handle)
                return true
            }
        }
    }

    package let sender = Sender()
    private let raw: UnsafeMutablePointer<uv_async_t>
    private var isClosed = false
    private var body: ((Message) -> Void)?
    private let core: MailboxCore

    package init(loop: EventLoop, _ body: @escaping (Message) -> Void) throws(UVError) {
        self.raw = .allocate(capacity: 1)
        self.core = MailboxCore()
        self.body = body
        do throws(UVError) { try check(uv_async_init(loop.raw, self.raw, onAsync)) } catch {
            self.raw.deallocate()
            self.isClosed = true
            throw error
        }
        self.core.deliver = { [unowned self] in self.deliver() }
        self.core.closed = { [unowned self] in self.didClose() }
        self.core.owner = self
        self.raw.pointee.data = Unmanaged.passRetained(self.core).toOpaque()
        let handle = UInt(bitPattern: self.raw)
        self.sender.state.withLock { $0.handle = UnsafeMutablePointer(bitPattern: handle) }
    }

    deinit {
        precondition(self.isClosed, "a mailbox was dropped before its close callback")
    }

    /// Drops undelivered messages and accepts no more.
    package func close() {
        // Before libuv frees anything.
        let wasOpen = self.sender.state.withLock { state in
            defer { state.handle = nil }
            return state.handle != nil
        }
        guard wasOpen else { return }
        self.body = nil
        uv_close(cuv_handle_of_async(self.raw), onClose)
    }

    private func deliver() {
        let messages = self.sender.state.withLock { state in
            defer { state.messages.removeAll() }
            return state.messages
        }
        for message in messages { self.body?(message) }
    }

    private func didClose() {
        self.raw.deallocate()
        self.isClosed = true
    }
}

/// What the C callbacks of a mailbox know of it, whatever its messages are. It holds the mailbox until the handle is
/// closed, as every handle holds itself (see ``SocketStream``).
private final class MailboxCore {
    var deliver: (() -> Void)?
    var closed: (() -> Void)?
    var owner: AnyObject?
}

private let onAsync: uv_async_cb = { handle in
    guard let data = handle?.pointee.data else { return }
    Unmanaged<MailboxCore>.fromOpaque(data)._withUnsafeGuaranteedRef { $0.deliver?() }
}

private let onClose: uv_close_cb = { handle in
    guard let data = handle?.pointee.data else { return }
    let core = Unmanaged<MailboxCore>.fromOpaque(data).takeRetainedValue()
    core.closed?()
    core.owner = nil
}
