import FoundationEssentials
package import Reactor
internal import Wire

/// The process that sent a request, as reported by the kernel (unix(7), SO_PEERCRED).
package struct ControlPeer: Equatable, Sendable, CustomStringConvertible {
    package let process: Int32
    package let user: UInt32

    package var description: String { "process \(self.process) of user \(self.user)" }
}

/// Handles the requests of a control socket.
package protocol ControlHandler: AnyObject {
    /// Answer with `conversation.succeed` or `fail`, immediately or later.
    func asked(_ request: ControlRequest, by peer: ControlPeer, _ conversation: ControlConversation)
}

/// The control socket of a running program: one request per connection, one JSON object per line.
package final class ControlServer {
    private static let maxConversations = 32

    /// The path of the socket. Its file permissions are the only access control: who can connect can do everything.
    package let path: String
    private let listener: SocketListener
    private unowned let handler: any ControlHandler
    /// Oldest first.
    private var conversations: [ControlConversation] = []

    /// Creates the socket, and replaces that of a crashed program. Throws `addressInUse` if a program still answers
    /// there.
    package init(
        loop: EventLoop, path: String, access: SocketListener.Access, handler: any ControlHandler
    ) throws(UVError) {
        guard UnixSocketFile.removeDead(path) else { throw .addressInUse }
        self.path = path
        self.handler = handler
        self.listener = try SocketListener(loop: loop, path: path, access: access)
        self.listener.delegate = self
    }

    /// Closes the socket and removes it. Conversations without a complete answer end at once.
    package func close() {
        self.listener.close()
        for conversation in self.conversations { conversation.closeIfUnfinished() }
    }

    fileprivate func asked(_ request: ControlRequest, by peer: ControlPeer, _ conversation: ControlConversation) {
        self.handler.asked(request, by: peer, conversation)
    }

    fileprivate func ended(_ conversation: ControlConversation) {
        self.conversations.removeAll { $0 === conversation }
    }
}

extension ControlServer: SocketListenerDelegate {
    package func listener(_ listener: SocketListener, didAccept stream: SocketStream) {
        if self.conversations.count >= Self.maxConversations {
            // The oldest conversation without a request makes room; it is removed after this turn.
            self.conversations.first { !$0.isAsked }?.abandon()
        }
        guard self.conversations.count < 2 * Self.maxConversations, let credentials = stream.peerCredentials else {
            return stream.close()
        }
        let peer = ControlPeer(process: credentials.process, user: credentials.user)
        let conversation = ControlConversation(stream, peer, self)
        self.conversations.append(conversation)
        conversation.start()
    }

    package func listener(_ listener: SocketListener, didFail error: UVError) {}
}

/// A request and its answer or answers.
package final class ControlConversation {
    private static let maxRequest = 16 * 1024
    private static let deadline: UInt64 = 5_000
    /// Maximum bytes queued for a watching client that does not read.
    private static let maxQueued = 1 << 20

    private let stream: SocketStream
    private let peer: ControlPeer
    /// Nil after the conversation has ended.
    private var server: ControlServer?
    private let timer: LoopTimer
    private var received: [UInt8] = []
    fileprivate private(set) var isAsked = false
    private var isFinished = false
    /// Called once when the connection has been closed.
    package var onEnd: (() -> Void)?

    fileprivate init(_ stream: SocketStream, _ peer: ControlPeer, _ server: ControlServer) {
        self.stream = stream
        self.peer = peer
        self.server = server
        self.timer = LoopTimer(loop: stream.loop) { stream.close() }
    }

    fileprivate func start() {
        self.timer.start(after: Self.deadline)
        self.stream.delegate = self
        self.stream.startReading()
    }

    package func succeed(_ result: some Codable) {
        self.send(ControlReply(result))
        self.finish()
    }

    /// - Parameter reason: a text for people.
    package func fail(_ reason: String) {
        self.send(ControlFailure(reason))
        self.finish()
    }

    /// Sends one of many answers. A client that reads them too slowly receives a failure, and no further answers.
    package func say(_ result: some Codable) {
        guard self.stream.queuedByteCount <= Self.maxQueued else {
            return self.fail("events arrived faster than they were read: some are lost")
        }
        self.send(ControlReply(result))
    }

    /// Sends answers that exist already, in any number.
    package func say(all results: [some Codable]) {
        for result in results { self.send(ControlReply(result)) }
    }

    private func send(_ value: some Encodable) {
        guard self.stream.isOpen, !self.isFinished else { return }
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        guard let data = try? encoder.encode(value) else { preconditionFailure("a report is always encodable") }
        _ = (Array(data) + [0x0A]).withUnsafeBytes { self.stream.write($0) }
    }

    private func finish() {
        self.isFinished = true
        // Queued bytes are still sent; then the client sees the end of the stream and closes.
        self.stream.shutdownWriting()
        self.timer.start(after: Self.deadline)
    }

    fileprivate func abandon() {
        self.isAsked = true
        self.stream.close()
    }

    /// If the answer is complete but still being sent, the connection stays open for at most five seconds.
    fileprivate func closeIfUnfinished() {
        if !self.isFinished { self.stream.close() }
    }
}

extension ControlConversation: SocketStreamDelegate {
    package func readAllowance(_ stream: SocketStream) -> Int { Self.maxRequest }

    package func socketStream(_ stream: SocketStream, didRead bytes: UnsafeRawBufferPointer) {
        guard !self.isAsked else { return }
        self.received += bytes
        guard let end = self.received.firstIndex(of: 0x0A) else {
            if self.received.count > Self.maxRequest { self.fail("the request is too long") }
            return
        }
        self.isAsked = true
        self.timer.stop()
        let line = Array(self.received[..<end])
        self.received = []
        switch ControlRequest.parse(line) {
        case .success(let request): self.server?.asked(request, by: self.peer, self)
        case .failure(let fault): self.fail(fault.description)
        }
    }

    package func socketStreamDidReachEnd(_ stream: SocketStream) { stream.close() }

    package func socketStream(_ stream: SocketStream, didWrite count: Int) {}

    package func socketStream(_ stream: SocketStream, didFail error: UVError) { stream.close() }

    package func socketStreamDidClose(_ stream: SocketStream) {
        self.timer.close()
        self.server?.ended(self)
        self.server = nil
        let onEnd = self.onEnd
        self.onEnd = nil
        onEnd?()
    }
}
