internal import Bytes
package import Reactor
package import Secure
package import Timing
package import Tunnel
internal import Wire

/// What one read of a transport brought, once its frames were handled.
struct HandledBatch {
    /// Bytes of whole frames; the rest is the beginning of the next one.
    var used: Int
    var frames: Int
    /// Edges that had bytes in it.
    var edges: Int
}

/// The ``LinkSession`` that a transport carries.
protocol LinkTransportDelegate: AnyObject {
    /// The handshake is over.
    ///
    /// - Returns: why the connection is to be closed; nil to go on.
    func transport(_ transport: LinkTransport, didSecure peer: ChannelPeer) -> LinkEnd?
    /// Decrypted bytes came.
    ///
    /// - Parameters:
    ///   - batch: what was left of the batch before, and the new bytes; valid during the call.
    ///   - new: how many are new.
    func transport(_ transport: LinkTransport, didReceive batch: UnsafeRawBufferPointer, new: Int) -> HandledBatch
    /// The socket took bytes that it held.
    func transportDidSend(_ transport: LinkTransport)
    /// The socket takes no more. The peer's last words may still be unread.
    func transportDidBreak(_ transport: LinkTransport)
    /// It begins to end. Not called for a connection that is refused before its handshake.
    func transportIsEnding(_ transport: LinkTransport)
    /// Nothing more comes from it, and nothing is sent any more: called when it begins to wait for its last words to be
    /// read, and when it closes its socket.
    func transport(_ transport: LinkTransport, stops end: LinkEnd)
    /// Its socket is closed.
    func transportDidClose(_ transport: LinkTransport, _ end: LinkEnd)
}

/// One TCP connection of a link: its socket, its encryption, the handshake and the last words. It ends with the
/// connection, and knows nothing of frames and streams.
package final class LinkTransport {
    /// How long the peer may take to read our last words.
    static let lingerMilliseconds: Milliseconds = 5_000
    /// The same when it does not matter whether the peer reads them, as the end of the connection says enough.
    static let shortLingerMilliseconds: Milliseconds = 1_000
    /// How much longer, while bytes before them are still moving.
    private static let maxLinger: Milliseconds = 30_000
    /// The kernel asks a silent peer whether it is there; one that has vanished is found after
    /// `TCP_USER_TIMEOUT`, which replaces the count (tcp(7)).
    private static let keepAlive: (idle: Int32, interval: Int32, count: Int32) = (15, 10, 3)
    /// What may wait unsent in the kernel; more only delays what is urgent.
    private static let notSentBytes: UInt32 = 128 * 1024

    package let loop: EventLoop
    package let peerAddress: SocketAddress?
    /// Whether the other end is a program of this machine, whatever address it was reached by.
    package let isLocal: Bool
    let version: LinkProtocol
    let role: Role
    let socket: SocketStream
    let buffers: RelayBuffers
    private let createdAt: Milliseconds
    private let handshakeDeadline: Milliseconds
    weak var delegate: (any LinkTransportDelegate)?
    /// As the gateway: decides before the handshake.
    package weak var gatekeeper: (any LinkGatekeeper)?
    var channel: (any SecureChannel)?
    var phase: Phase
    /// The beginning of a frame that is not yet whole.
    private var partial = ByteQueue()
    var readBudget = ReadBudget()
    /// What the socket holds of our bytes, in the process's budget.
    private var outputShare: BudgetShare
    /// Nil at the agent.
    private var meter: TransportMeter?
    /// What the kernel held of our bytes at the last tick.
    private var lastUnacknowledged = 0
    var blackHole: BlackHoleWatch
    /// While the handshake waits.
    var waitTimer: LoopTimer?

    package init(
        socket: SocketStream, version: LinkProtocol, role: Role, handshakeDeadline: Milliseconds, budget: ByteBudget?,
        buffers: RelayBuffers, meter: RelayMeter? = nil
    ) throws(SecurityError) {
        self.loop = socket.loop
        self.socket = socket
        self.version = version
        self.role = role
        self.buffers = buffers
        self.meter = meter.map { TransportMeter($0) }
        self.outputShare = BudgetShare(budget)
        self.peerAddress = socket.peerAddress
        let (peer, own) = (socket.peerAddress, socket.localAddress)
        self.isLocal = peer.map { $0.isLoopback || $0.host == own?.host } ?? false
        self.createdAt = socket.loop.now
        self.blackHole = BlackHoleWatch(now: socket.loop.now)
        self.handshakeDeadline = handshakeDeadline
        self.phase = .silent(Greeting(version))
        if role == .agent {
            self.phase = .open
            self.channel = try version.channel(isServer: false)
        }
    }

    /// Starts reading, and as the dialling side the handshake.
    func start() {
        self.socket.delegate = self
        self.socket.setNoDelay()
        self.socket.setUserTimeout(milliseconds: self.version.userTimeout)
        self.socket.setNotSentLowWater(bytes: Self.notSentBytes)
        self.socket.startReading()
        // Where the protocol does not ask for signs of life, the kernel does.
        if case .version1 = self.version {
            let probes = Self.keepAlive
            self.socket.setKeepAlive(seconds: probes.idle, interval: probes.interval, count: probes.count)
        }
        guard let channel = self.channel else { return }
        do throws(SecurityError) {
            try channel.start(output: &self.buffers.cipher)
            self.writeEncrypted()
        } catch { self.encryptionFailed(error) }
    }

    /// As the agent: the largest segment for the next link, if this one ended as if larger packets did not pass.
    package var advisedSegment: Int? { self.blackHole.isLikely ? BlackHoleWatch.smallSegment : nil }

    var isEstablished: Bool { self.channel?.isEstablished ?? false }

    // MARK: - Bytes that were received

    func decrypt(_ bytes: UnsafeRawBufferPointer) {
        guard case .open = self.phase, let channel = self.channel else { return }
        let carried = self.partial.count
        let plain = self.buffers.plain
        self.partial.withReadable { UnsafeMutableRawBufferPointer(rebasing: plain[0..<$0.count]).copyMemory(from: $0) }
        self.partial.removeAll()
        let wasEstablished = channel.isEstablished
        let recordsBefore = channel.recordsReceived
        let count: Int
        do throws(SecurityError) {
            count = try channel.receive(
                bytes, into: UnsafeMutableRawBufferPointer(rebasing: plain[carried...]), output: &self.buffers.cipher)
        } catch {
            if let limit = error.limit { self.hit(LimitHit(limit)) }
            // The TLS alert with the reason.
            self.writeEncrypted()
            return self.close(.security(error))
        }
        self.writeEncrypted()
        guard let delegate = self.delegate else { return self.close(.ended(.internalError, "the link has no session")) }
        if !wasEstablished, let peer = channel.peer, let end = delegate.transport(self, didSecure: peer) {
            return self.close(end)
        }
        let batch = UnsafeRawBufferPointer(rebasing: plain[0..<(carried + count)])
        let handled = delegate.transport(self, didReceive: batch, new: count)
        if self.isOpen { self.partial.append(UnsafeRawBufferPointer(rebasing: batch[handled.used...])) }
        self.readBudget.spent(
            bytes: bytes.count, records: channel.recordsReceived - recordsBefore, frames: handled.frames,
            edges: handled.edges, now: self.loop.now)
        if channel.isClosedByPeer { self.close(.closedByPeer) }
    }

    /// Reads no more for now: what was received already has to be handled first.
    func pauseReading() { self.socket.stopReading() }

    func resumeReading() { self.socket.startReading() }

    // MARK: - Bytes that are sent

    /// Whether the socket has sent all that it was given.
    var canSend: Bool { self.socket.queuedByteCount == 0 && !self.socket.isBroken }

    /// Encrypts bytes, which ``writeEncrypted()`` then gives to the socket.
    ///
    /// - Precondition: the handshake is over.
    func encrypt(_ bytes: UnsafeRawBufferPointer) throws(SecurityError) {
        try self.channel?.encrypt(bytes, output: &self.buffers.cipher)
    }

    /// Closes the connection after ``encrypt(_:)`` has failed. The buffer is shared: nothing of this link may reach
    /// another.
    func encryptionFailed(_ error: SecurityError) {
        self.buffers.cipher.removeAll()
        self.close(.security(error))
    }

    func writeEncrypted() {
        guard !self.buffers.cipher.isEmpty else { return }
        _ = self.buffers.cipher.withReadable { self.socket.write($0) }
        self.buffers.cipher.removeAll()
        self.outputQueued(self.socket.queuedByteCount)
    }

    /// The socket holds so many of our bytes.
    func outputQueued(_ count: Int) {
        self.outputShare.set(count)
        self.meter?.queued(count)
    }

    /// Whether the peer has taken some of what waits for the socket since this was last asked.
    private func isOutputMoving() -> Bool {
        guard self.socket.queuedByteCount > 0 else { return false }
        let count = self.socket.unacknowledgedByteCount
        defer { self.lastUnacknowledged = count }
        return count != self.lastUnacknowledged
    }

    // MARK: - Time and the end

    /// Looks at the deadlines; call it about once a second.
    ///
    /// - Parameter hasStreams: whether the peer has a reason for large packets.
    /// - Returns: whether the peer has taken some of what waits for the socket since the last call.
    func tick(isPastLogin: Bool, hasStreams: Bool) -> Bool {
        let now = self.loop.now
        switch self.phase {
        case .closing, .closed: return false
        case .lingering(let until, let end):
            // What still moves may finish: it is the tail of streams that have ended in order.
            if now >= until, !self.isOutputMoving() || now >= until + Self.maxLinger { self.close(end) }
            return false
        case .silent, .asking, .waiting, .open:
            if !self.isEstablished, now - self.createdAt >= self.handshakeDeadline {
                self.hit(.handshakeTimeout)
                self.close(.ended(.handshakeTimeout, "the handshake took too long"))
                return false
            }
            if self.role == .agent, let sending = self.socket.sending {
                self.blackHole.look(
                    sending, unacknowledged: self.socket.unacknowledgedByteCount, hasStreams: hasStreams, now: now)
            }
            if isPastLogin { self.channel?.allowMessage() }
            self.partial.releaseStorageIfEmpty()
            return self.isOutputMoving()
        }
    }

    /// Says that nothing more will come, and closes when the peer has read that or the time for it is over. What was
    /// encrypted before goes first.
    func linger(_ end: LinkEnd, for milliseconds: Milliseconds) {
        guard self.isOpen else { return }
        self.endWait()
        if let channel = self.channel, channel.isEstablished {
            channel.close(output: &self.buffers.cipher)
            // An agent of version 1 sends no last words, so there is nothing to wait for.
            let isSilent = self.buffers.cipher.isEmpty && self.socket.queuedByteCount == 0
            self.writeEncrypted()
            if isSilent, self.role == .agent { return self.close(end) }
        }
        self.phase = .lingering(until: self.loop.now + milliseconds, end)
        self.delegate?.transportIsEnding(self)
        self.delegate?.transport(self, stops: end)
        self.socket.shutdownWriting()
    }

    /// Closes at once.
    func close(_ end: LinkEnd) {
        switch self.phase {
        case .closing, .closed: return
        case .lingering(_, let first): self.phase = .closing(first)
        case .silent, .asking, .waiting, .open:
            self.phase = .closing(end)
            self.delegate?.transportIsEnding(self)
        }
        self.endWait()
        self.delegate?.transport(self, stops: end)
        // The queue ends with the socket.
        self.outputQueued(0)
        self.socket.close()
    }

    func socketClosed() {
        guard case .closing(let end) = self.phase else { return }
        self.phase = .closed(end)
        self.delegate?.transportDidClose(self, end)
    }

    func hit(_ limit: LimitHit) { self.meter?.hit(limit) }
}
