internal import CUV
import Synchronization

/// How other threads reach a loop: messages posted from anywhere arrive on the loop, in order.
///
/// `@unchecked Sendable`, the only one of this package. Proof: another thread can call nothing but `post`, which
/// touches only `state`, guarded by its mutex; the handle is used by `post` under that mutex and only while `isOpen`,
/// which `close` clears under the same mutex before libuv may free anything. `uv_async_send` itself may be called from
/// any thread (libuv, "uv_async_t"). Everything else (`body`, the flags) belongs to the loop's thread: only `init`,
/// `close` and callbacks of the loop use it, and `deinit`, which may run on another thread but only after the close
/// callback, as the handle holds the mailbox until then.
package final class Mailbox<Message: Sendable>: @unchecked Sendable {
    private struct State {
        var messages: [Message] = []
        var isOpen = true
    }

    private let raw: UnsafeMutablePointer<uv_async_t>
    private let state = Mutex(State())
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
    }

    deinit {
        precondition(self.isClosed, "a mailbox was dropped before its close callback")
    }

    /// Sends `message` to the loop, from any thread; false when the mailbox is closed.
    @discardableResult
    package func post(_ message: Message) -> Bool {
        self.state.withLock { state in
            guard state.isOpen else { return false }
            state.messages.append(message)
            uv_async_send(self.raw)
            return true
        }
    }

    /// Takes no more messages; those that were posted and not delivered are dropped. On the loop's thread.
    package func close() {
        let wasOpen = self.state.withLock { state in
            defer { state.isOpen = false }
            return state.isOpen
        }
        guard wasOpen else { return }
        self.body = nil
        uv_close(cuv_handle_of_async(self.raw), onClose)
    }

    private func deliver() {
        let messages = self.state.withLock { state in
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
