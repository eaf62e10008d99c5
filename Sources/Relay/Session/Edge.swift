internal import Bytes
package import Reactor
package import Timing
package import Tunnel
package import Wire

/// One end of a stream: the socket of a visitor (at the gateway) or of a backend (at the agent).
package final class Edge {
    /// What the socket still sends to us.
    private enum Reading { case active, ended }
    /// What we still send to the socket.
    private enum Writing {
        case open
        /// FIN came over the link and follows what is queued.
        case finishing
    }

    private enum Phase {
        case open
        /// The link has ended the stream: what came before is still written on, then the socket is reset.
        case delivering(StreamEnd)
        /// The socket takes no more: what it had sent is still read, then the link hears of the failure.
        case broken(UVError, progressAt: Milliseconds)
        /// The socket is closed, or about to be.
        case closing(StreamEnd)
    }

    /// How long a reset waits for bytes before it that make no progress.
    static let resetPatience: Milliseconds = 10_000
    /// A peer that acknowledges nothing for so long has vanished. TCP_USER_TIMEOUT would not do: the kernel counts the
    /// time in which a reader keeps its window shut as well (tcp(7)).
    static let vanishedMilliseconds: UInt32 = 300_000
    /// Between two looks for that.
    private static let lookMilliseconds: Milliseconds = 30_000
    /// An idle peer that has vanished is found after 60 s + 8 * 30 s.
    static let keepAlive: (idle: Int32, interval: Int32, count: Int32) = (60, 30, 8)
    /// What the kernel holds unsent for a peer that does not read; bytes on their way come on top (tcp(7),
    /// TCP_NOTSENT_LOWAT). Without a bound its buffer grows to megabytes.
    static let notSentBytes: UInt32 = 256 * 1024
    /// The same, and what it takes of a peer before we read, when many streams run (tcp(7), SO_RCVBUF).
    static let crowdedBytes: UInt32 = 32 * 1024

    package let key: StreamKey
    package let exposure: UInt16
    package let visitor: WireAddress
    package let openedAt: Milliseconds
    /// The same, finer: what came first is told from here (``EventLoop/nanoseconds``).
    package let openedNanoseconds: UInt64
    /// Bytes that the socket has sent, and the link was given.
    package private(set) var bytesFromSocket: UInt64 = 0
    /// Bytes of the link that the socket has taken.
    package private(set) var bytesToSocket: UInt64 = 0
    /// When the first byte came, from the socket and from the link; 0 before.
    package private(set) var firstFromSocket: UInt64 = 0
    package private(set) var firstFromLink: UInt64 = 0
    package private(set) var endedFirst: EndingSide?
    /// The session outlives its edges, which tell it when they are closed.
    private let link: LinkSession
    /// Nil at the agent until the backend is connected.
    private var socket: SocketStream?
    private var reading = Reading.active
    private var writing = Writing.open
    private var phase = Phase.open
    /// What came before the backend was connected: what the peer may send before it is known.
    private var early = ByteQueue()
    /// Bytes of ours before the visitor's that the kernel has not taken; no window counts them.
    private var prefaceLeft = 0
    /// What the kernel held of our bytes when it was last looked at.
    private var lastUnacknowledged = 0
    /// When it was last asked how long the peer has been silent.
    private var lookedAt: Milliseconds
    /// Bytes of the current batch: the first in place, as there is rarely a second.
    private var pieces: (first: UnsafeRawBufferPointer?, more: [UnsafeRawBufferPointer]) = (nil, [])

    init(
        key: StreamKey, exposure: UInt16, visitor: WireAddress, socket: SocketStream?, link: LinkSession
    ) {
        self.key = key
        self.exposure = exposure
        self.visitor = visitor
        self.link = link
        self.openedAt = link.loop.now
        self.openedNanoseconds = EventLoop.nanoseconds
        self.lookedAt = link.loop.now
        self.socket = socket
        if let socket { self.begin(socket) }
    }

    private func begin(_ socket: SocketStream) {
        socket.delegate = self
        socket.setNoDelay()
        socket.setResetOnDeath()
        let isCrowded = self.link.transport.buffers.isCrowded
        socket.setNotSentLowWater(bytes: isCrowded ? Self.crowdedBytes : Self.notSentBytes)
        if isCrowded {
            socket.setReceiveBuffer(bytes: Self.crowdedBytes)
            self.link.hit(.smallBuffers)
        }
        let probes = Self.keepAlive
        socket.setKeepAlive(seconds: probes.idle, interval: probes.interval, count: probes.count)
        socket.startReading()
    }

    // MARK: - From the link

    /// Whether the peer has taken bytes since the last look, though it is too slow for one of ours to be done.
    var isMoving: Bool {
        guard let socket = self.socket, socket.queuedByteCount > 0 else { return false }
        let count = socket.unacknowledgedByteCount
        defer { self.lastUnacknowledged = count }
        return count != self.lastUnacknowledged
    }

    /// What the kernel holds for the peer.
    var unacknowledgedByteCount: Int { self.socket?.unacknowledgedByteCount ?? 0 }

    /// Looks whether the peer of the socket has gone; call it about once a second.
    func tick(now: Milliseconds) {
        guard let socket = self.socket else { return }
        switch self.phase {
        case .open:
            socket.checkPeer()
            guard now - self.lookedAt >= Self.lookMilliseconds else { return }
            self.lookedAt = now
            if let silence = socket.unansweredMilliseconds, silence >= Self.vanishedMilliseconds {
                self.socketStream(socket, didFail: .timedOut)
            }
        case .broken(let error, let progressAt):
            guard now - progressAt >= Self.resetPatience else { return }
            self.link.hit(.resetWait)
            self.socketStream(socket, didFail: error)
        case .delivering, .closing: break
        }
    }

    /// Takes bytes that lie in the batch; true when the edge was not yet touched in this batch.
    func take(_ bytes: UnsafeRawBufferPointer, fin: Bool) -> Bool {
        if fin {
            self.writing = .finishing
            if self.endedFirst == nil { self.endedFirst = .link }
        }
        guard bytes.count > 0 else { return self.pieces.first == nil }
        if self.firstFromLink == 0 { self.firstFromLink = EventLoop.nanoseconds }
        guard self.pieces.first != nil else {
            self.pieces.first = bytes
            return true
        }
        self.pieces.more.append(bytes)
        return false
    }

    /// Writes what the batch brought, in one call.
    func flushPieces() {
        guard self.takesBytes else {
            self.pieces.first = nil
            self.pieces.more.removeAll(keepingCapacity: true)
            return
        }
        if let first = self.pieces.first {
            self.pieces.first = nil
            if let socket = self.socket {
                var written: Int
                if self.pieces.more.isEmpty {
                    written = socket.write(first)
                } else {
                    self.pieces.more.insert(first, at: 0)
                    written = socket.write(self.pieces.more)
                    self.pieces.more.removeAll(keepingCapacity: true)
                }
                self.wrote(written)
            } else {
                self.early.append(first)
                for more in self.pieces.more { self.early.append(more) }
                self.pieces.more.removeAll(keepingCapacity: true)
            }
        }
        self.settle()
    }

    private var takesBytes: Bool {
        switch self.phase {
        case .open, .delivering: true
        case .broken, .closing: false
        }
    }

    private func wrote(_ count: Int) {
        self.bytesToSocket &+= UInt64(count)
        self.link.consumed(self.key, count)
    }

    /// The socket had brought these before the edge had it: they go the way of those that it reads.
    ///
    /// - Precondition: there are no more of them than the window that HELLO promises.
    package func send(first bytes: UnsafeRawBufferPointer) {
        guard let socket = self.socket, bytes.count > 0 else { return }
        self.socketStream(socket, didRead: bytes)
    }

    /// The backend is connected: after the preface goes what came early.
    func connected(_ socket: SocketStream, preface: [UInt8]) {
        self.socket = socket
        self.begin(socket)
        if !preface.isEmpty { self.prefaceLeft = preface.count - preface.withUnsafeBytes { socket.write($0) } }
        if !self.early.isEmpty {
            let written = self.early.withReadable { socket.write($0) }
            self.early.removeAll()
            self.early.releaseStorageIfEmpty()
            self.wrote(written)
        }
        self.settle()
    }

    /// Ends both directions in order: what is queued is still delivered, what the socket sends is not waited for.
    func finish() {
        guard case .open = self.phase else { return }
        if self.endedFirst == nil { self.endedFirst = .here }
        self.reading = .ended
        self.writing = .finishing
        self.settle()
    }

    /// The link can take bytes of this stream again.
    func resume() {
        switch self.phase {
        case .open, .broken: break
        case .delivering, .closing: return
        }
        guard case .active = self.reading else { return }
        self.socket?.startReading()
    }

    /// Resets the socket once it has what came over the link, so that an answer before the reset arrives.
    func endAfterDelivery(_ end: StreamEnd) {
        switch self.phase {
        case .open: break
        // The socket takes nothing more, and the link no longer carries the failure.
        case .broken: return self.abort(end)
        case .delivering, .closing: return
        }
        self.phase = .delivering(end)
        self.socket?.stopReading()
        // The pieces of this batch are written first.
        if self.pieces.first == nil { self.settle() }
    }

    /// Cuts the socket with a reset, so that a truncated answer never looks complete.
    func abort(_ end: StreamEnd) {
        if case .closing = self.phase { return }
        self.phase = .closing(end)
        if let socket = self.socket { socket.reset() } else { self.link.edgeClosed(self, end) }
    }

    /// Ends the socket's directions as the link's directions have ended.
    private func settle() {
        switch self.phase {
        case .open: self.settleInOrder()
        case .delivering(let end):
            guard let socket = self.socket else {
                // What came early waits for the backend; without it there is nothing to deliver.
                if self.early.isEmpty { self.abort(end) }
                return
            }
            if case .finishing = self.writing { socket.shutdownWriting() }
            socket.resetWhenDelivered(patience: Self.resetPatience)
        case .broken, .closing: break
        }
    }

    private func settleInOrder() {
        guard case .finishing = self.writing, let socket = self.socket else { return }
        switch self.reading {
        case .active: socket.shutdownWriting()
        case .ended:
            guard socket.queuedByteCount == 0 else { return }
            self.phase = .closing(.finished)
            socket.close()
        }
    }
}

extension Edge: SocketStreamDelegate {
    package func readAllowance(_ stream: SocketStream) -> Int {
        self.link.sendAllowance(self.key)
    }

    package func socketStream(_ stream: SocketStream, didRead bytes: UnsafeRawBufferPointer) {
        if self.bytesFromSocket == 0 { self.firstFromSocket = EventLoop.nanoseconds }
        self.bytesFromSocket &+= UInt64(bytes.count)
        if case .broken(let error, _) = self.phase {
            self.phase = .broken(error, progressAt: self.link.loop.now)
        }
        self.link.send(self.key, bytes)
        // Stop now rather than be asked again in vain by the next readiness.
        guard self.link.sendAllowance(self.key) == 0 else { return }
        self.link.hit(.sendQueue)
        stream.stopReading()
    }

    package func socketStreamDidReachEnd(_ stream: SocketStream) {
        guard case .open = self.phase else { return }
        self.reading = .ended
        if self.endedFirst == nil { self.endedFirst = .socket }
        if self.link.finish(self.key) { self.writing = .finishing }
        self.settle()
    }

    package func socketStream(_ stream: SocketStream, didWrite count: Int) {
        // The preface was queued before all else.
        let own = min(count, self.prefaceLeft)
        self.prefaceLeft -= own
        self.wrote(count - own)
        if case .open = self.phase { self.settleInOrder() }
    }

    /// What the socket had sent before is still read and sent on.
    package func socketStream(_ stream: SocketStream, didBreak error: UVError) {
        guard case .open = self.phase else { return }
        self.phase = .broken(error, progressAt: self.link.loop.now)
        if self.link.sendAllowance(self.key) > 0 { stream.startReading() }
    }

    package func socketStream(_ stream: SocketStream, didFail error: UVError) {
        switch self.phase {
        case .open, .broken: break
        case .delivering, .closing: return
        }
        if error == .timedOut { self.link.hit(.keepAlive) }
        self.link.reset(self.key, .aborted)
        self.abort(.failed(error))
    }

    package func socketStreamDidClose(_ stream: SocketStream) {
        if stream.hasGivenUpDelivery { self.link.hit(.resetWait) }
        switch self.phase {
        case .delivering(let end), .closing(let end): self.link.edgeClosed(self, end)
        case .open, .broken: preconditionFailure("the socket of a running edge was closed")
        }
    }
}
