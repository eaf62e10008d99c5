internal import Glibc

/// Sends messages to the service manager (sd_notify(3)).
///
/// Never blocks, even if the manager is busy or gone. Messages are queued while the manager is busy, and dropped on
/// other errors. Only the first failure is reported.
package final class NotifySocket {
    /// Maximum length of the queue. A start with a thousand names sends one message for each.
    package static let maxWaiting = 2_048

    private struct Message {
        let text: String
        /// A duplicate that we close after sending: the caller may close the original while the message is queued, and
        /// its number may be reused.
        let attached: Int32?
    }

    private let address: [UInt8]
    private let socket: UnixDatagram
    private let complain: (String) -> Void
    private var hasComplained = false
    private var waiting: [Message] = []

    /// Returns nil if the socket cannot be opened, for example because no descriptor is left.
    ///
    /// - Parameters:
    ///   - address: the bytes of a path, or of an abstract name with a zero before it.
    ///   - complain: receives an error message for the first failure only.
    package init?(address: [UInt8], complain: @escaping (String) -> Void) {
        guard let socket = UnixDatagram() else { return nil }
        self.address = address
        self.socket = socket
        self.complain = complain
    }

    deinit {
        for message in self.waiting { if let attached = message.attached { Glibc.close(attached) } }
    }

    /// Sends a message now, or queues it until the manager has read earlier ones.
    ///
    /// - Parameter descriptor: sent with the message; the caller still owns it.
    package func send(_ message: ServiceMessage, with descriptor: Int32? = nil) {
        self.flush()
        guard self.waiting.isEmpty else { return self.wait(message, descriptor) }
        let code = self.socket.send(message.text, to: self.address, attached: descriptor)
        if UnixDatagram.full.contains(code) { self.wait(message, descriptor) } else { self.note(code) }
    }

    /// Sends a message now or not at all. For messages that would be stale after waiting in the queue.
    ///
    /// - Returns: whether it was sent.
    package func sendAtOnce(_ message: ServiceMessage) -> Bool {
        self.flush()
        guard self.waiting.isEmpty else { return false }
        let code = self.socket.send(message.text, to: self.address, attached: nil)
        if !UnixDatagram.full.contains(code) { self.note(code) }
        return code == 0
    }

    /// Retries queued messages. Call it about once a second.
    package func flush() {
        while let message = self.waiting.first {
            let code = self.socket.send(message.text, to: self.address, attached: message.attached)
            guard !UnixDatagram.full.contains(code) else { return }
            self.note(code)
            if let attached = message.attached { Glibc.close(attached) }
            self.waiting.removeFirst()
        }
    }

    private func wait(_ message: ServiceMessage, _ descriptor: Int32?) {
        guard self.waiting.count < Self.maxWaiting else { return self.note(ENOBUFS) }
        var copy: Int32?
        if let descriptor {
            let duplicate = fcntl(descriptor, F_DUPFD_CLOEXEC, 0)
            guard duplicate >= 0 else { return self.note(errno) }
            copy = duplicate
        }
        self.waiting.append(Message(text: message.text, attached: copy))
    }

    private func note(_ code: Int32) {
        guard code != 0, !self.hasComplained else { return }
        self.hasComplained = true
        self.complain("cannot notify the service manager: \(String(cString: strerror(code)).lowercased())")
    }
}
