internal import Bytes
package import Reactor
package import Timing
package import Tunnel
package import Wire

/// One end of a stream: the socket of a visitor (at the gateway) or of a backend (at the agent).
package final class Edge {
    /// The direction from the socket to the link.
    private enum Reading { case active, ended }
    /// The direction from the link to the socket.
    private enum Writing {
        case open
        /// FIN arrived over the link and follows the queued bytes.
        case finishing
    }

    private enum Phase {
        case open
        /// The link has ended the stream. Bytes received before that are still written, then the socket is reset.
        case delivering(StreamEnd)
        /// Writing to the socket failed. Bytes that its peer sent before are still read, then the stream is reset.
        case broken(UVError, progressAt: Milliseconds)
        /// The socket is closed, or about to be.
        case closing(StreamEnd)
    }

    /// How long a reset waits while the bytes before it make no progress.
    static let resetPatience: Milliseconds = 10_000
    /// A peer that has acknowledged nothing for this long has vanished. TCP_USER_TIMEOUT does not replace it: it also runs
    /// while a slow reader keeps its window closed (tcp(7)).
    static let vanishedMilliseconds: UInt32 = 300_000
    /// Interval between two checks for a vanished peer.
    private static let lookMilliseconds: Milliseconds = 30_000
    /// In seconds, except for the count. Detects a vanished idle peer after 60 s + 8 * 30 s.
    static let keepAlive: (idle: Int32, interval: Int32, count: Int32) = (60, 30, 8)
    /// How many unsent bytes the kernel buffers for a peer that does not read, in addition to the bytes in flight
    /// (tcp(7), TCP_NOTSENT_LOWAT). Without a limit its buffer grows to megabytes.
    static let notSentBytes: UInt32 = 256 * 1024
    /// Replaces `notSentBytes` when many streams are open, and also limits the receive buffer (tcp(7), SO_RCVBUF).
    static let crowdedBytes: UInt32 = 32 * 1024

    package let key: StreamKey
    package let exposure: UInt16
    package let visitor: WireAddress
    package let openedAt: Milliseconds
    /// `openedAt` in nanoseconds (``EventLoop/nanoseconds``), for measuring the time to the first bytes.
    package let openedNanoseconds: UInt64
    /// Bytes read from the socket and passed to the link.
    package private(set) var bytesFromSocket: UInt64 = 0
    /// Bytes from the link that the socket has taken.
    package private(set) var bytesToSocket: UInt64 = 0
    /// When the first byte arrived from the socket and from the link (``EventLoop/nanoseconds``); 0 if none has.
    package private(set) var firstFromSocket: UInt64 = 0
    package private(set) var firstFromLink: UInt64 = 0
    /// What ended the first direction that ended in order; nil if none has.
    package private(set) var endedFirst: EndingSide?
    /// Strong reference: the session outlives its edges, which report to it when they have closed.
    private let link: LinkSession
    /// Nil at the agent until the backend is connected.
    private var socket: SocketStream?
    private var reading = Reading.active
    private var writing = Writing.open
    private var phase = Phase.open
    /// Bytes from the link that arrived before the backend was connected. Limited by what the peer may send before
    /// ACCEPT.
    private var early = ByteQueue()
    /// How many bytes of the preface, which precedes the visitor's bytes, the kernel has not taken yet. They do not
    /// count against the window.
    private var prefaceLeft = 0
    /// The number of unacknowledged bytes at the last check.
    private var lastUnacknowledged = 0
    /// When the peer's silence was last checked.
    private var lookedAt: Milliseconds
    /// Bytes of the current batch, valid only during it. The first piece is stored inline: there is rarely a second.
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

    /// Whether the peer has acknowledged bytes since the last call, even if too few for a chunk to be written.
    var isMoving: Bool {
        guard let socket = self.socket, socket.queuedByteCount > 0 else { return false }
        let count = socket.unacknowledgedByteCount
        defer { self.lastUnacknowledged = count }
        return count != self.lastUnacknowledged
    }

    /// Bytes that the kernel holds because the peer has not acknowledged them.
    var unacknowledgedByteCount: Int { self.socket?.unacknowledgedByteCount ?? 0 }

    /// Checks whether the socket's peer is gone. Call it about once a second.
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

    /// Takes bytes of the batch, which must stay valid until ``flushPieces()``. Returns true if the edge had no bytes
    /// in this batch yet.
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

    /// Writes the bytes of the batch in one call.
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

    /// Sends bytes that were read from the socket before the edge took it over.
    ///
    /// - Precondition: there are no more bytes than the window in the peer's HELLO.
    package func send(first bytes: UnsafeRawBufferPointer) {
        guard let socket = self.socket, bytes.count > 0 else { return }
        self.socketStream(socket, didRead: bytes)
    }

    /// The backend is connected. Writes the preface, then the early bytes.
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

    /// Ends both directions in order. Queued bytes are still delivered; further bytes from the socket are not awaited.
    func finish() {
        guard case .open = self.phase else { return }
        if self.endedFirst == nil { self.endedFirst = .here }
        self.reading = .ended
        self.writing = .finishing
        self.settle()
    }

    /// Reads the socket again, because the link has room for this stream.
    func resume() {
        switch self.phase {
        case .open, .broken: break
        case .delivering, .closing: return
        }
        guard case .active = self.reading else { return }
        self.socket?.startReading()
    }

    /// Resets the socket after delivering the bytes from the link, so that an answer sent before the reset arrives.
    func endAfterDelivery(_ end: StreamEnd) {
        switch self.phase {
        case .open: break
        // The socket takes no more bytes, and the failure can no longer be sent over the link.
        case .broken: return self.abort(end)
        case .delivering, .closing: return
        }
        self.phase = .delivering(end)
        self.socket?.stopReading()
        // Pieces of the current batch are written first: `flushPieces` settles then.
        if self.pieces.first == nil { self.settle() }
    }

    /// Resets the socket at once, so that a truncated answer never looks complete.
    func abort(_ end: StreamEnd) {
        if case .closing = self.phase { return }
        self.phase = .closing(end)
        if let socket = self.socket { socket.reset() } else { self.link.edgeClosed(self, end) }
    }

    /// Ends the directions of the socket whose counterparts on the link have ended.
    private func settle() {
        switch self.phase {
        case .open: self.settleInOrder()
        case .delivering(let end):
            guard let socket = self.socket else {
                // Early bytes wait for the backend. Without any there is nothing to deliver.
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
        // Stop now to save a wakeup that could not read anything.
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
        // The preface was queued first, so it is written first.
        let own = min(count, self.prefaceLeft)
        self.prefaceLeft -= own
        self.wrote(count - own)
        if case .open = self.phase { self.settleInOrder() }
    }

    /// Bytes that the socket has received before are still read and sent over the link.
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
