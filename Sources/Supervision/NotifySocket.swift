internal import Glibc

/// Sends messages to the service manager (sd_notify(3)).
///
/// A manager that is busy or gone never holds the daemon up: what must arrive waits its turn and is tried again, and
/// the first failure is reported, once.
package final class NotifySocket {
    /// Messages that wait; a start with a thousand names has one for each.
    package static let maxWaiting = 2_048

    private struct Message {
        let text: String
        /// A descriptor of our own, closed when it was sent: its original may be closed and its number given away
        /// while the message waits.
        let attached: Int32?
    }

    private let address: [UInt8]
    private let socket: UnixDatagram
    private let complain: (String) -> Void
    private var hasComplained = false
    private var waiting: [Message] = []

    /// - Parameters:
    ///   - address: the bytes of a path, or of an abstract name with a zero before it.
    ///   - complain: is told of the first message that cannot be sent.
    package init?(address: [UInt8], complain: @escaping (String) -> Void) {
        guard let socket = UnixDatagram() else { return nil }
        self.address = address
        self.socket = socket
        self.complain = complain
    }

    deinit {
        for message in self.waiting { if let attached = message.attached { Glibc.close(attached) } }
    }

    /// Sends a message now, or as soon as the manager has read former ones.
    ///
    /// - Parameter descriptor: goes along, and stays the caller's.
    package func send(_ message: ServiceMessage, with descriptor: Int32? = nil) {
        self.flush()
        guard self.waiting.isEmpty else { return self.wait(message, descriptor) }
        let code = self.socket.send(message.text, to: self.address, attached: descriptor)
        if UnixDatagram.full.contains(code) { self.wait(message, descriptor) } else { self.note(code) }
    }

    /// Sends a message that is stale in a moment: now or never.
    ///
    /// - Returns: whether it was sent.
    package func sendAtOnce(_ message: ServiceMessage) -> Bool {
        self.flush()
        guard self.waiting.isEmpty else { return false }
        let code = self.socket.send(message.text, to: self.address, attached: nil)
        if !UnixDatagram.full.contains(code) { self.note(code) }
        return code == 0
    }

    /// Tries again what waits; call it about once a second.
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
