internal import Bytes
package import Reactor
package import Secure
package import Timing
package import Tunnel
internal import Wire

/// The result of handling the frames of one read.
struct HandledBatch {
    /// The number of bytes in complete frames. The rest is the beginning of the next frame.
    var used: Int
    var frames: Int
    /// The number of edges that had bytes in the batch.
    var edges: Int
}

/// The ``LinkSession`` that a transport carries.
protocol LinkTransportDelegate: AnyObject {
    /// The handshake is complete.
    ///
    /// - Returns: why to close the connection; nil to continue.
    func transport(_ transport: LinkTransport, didSecure peer: ChannelPeer) -> LinkEnd?
    /// Decrypted bytes arrived.
    ///
    /// - Parameters:
    ///   - batch: the rest of the previous batch and the new bytes; valid only during the call.
    ///   - new: how many of the bytes are new.
    func transport(_ transport: LinkTransport, didReceive batch: UnsafeRawBufferPointer, new: Int) -> HandledBatch
    /// The kernel took queued bytes.
    func transportDidSend(_ transport: LinkTransport)
    /// Writing failed. The peer's last bytes may still be unread.
    func transportDidBreak(_ transport: LinkTransport)
    /// The transport is ending. Not called for a connection that is refused before its handshake.
    func transportIsEnding(_ transport: LinkTransport)
    /// The transport delivers and sends nothing more. Called when it begins to linger, and when it closes its socket.
    func transport(_ transport: LinkTransport, stops end: LinkEnd)
    /// The socket is closed.
    func transportDidClose(_ transport: LinkTransport, _ end: LinkEnd)
}

/// One TCP connection of a link: its socket, its encryption, the handshake and the orderly end. It lives as long as the
/// connection, and does not know frames or streams.
package final class LinkTransport {
    /// How long the peer may take to read our last bytes.
    static let lingerMilliseconds: Milliseconds = 5_000
    /// Used if the peer need not read them because the end of the connection is sufficient information.
    static let shortLingerMilliseconds: Milliseconds = 1_000
    /// Additional time while the bytes before them still make progress.
    private static let maxLinger: Milliseconds = 30_000
    /// In seconds. The kernel probes a silent peer, and gives up after `TCP_USER_TIMEOUT`, which replaces the count
    /// (tcp(7)).
    private static let keepAlive: (idle: Int32, interval: Int32, count: Int32) = (15, 10, 3)
    /// Maximum number of unsent bytes in the kernel. More would only delay urgent frames.
    private static let notSentBytes: UInt32 = 128 * 1024

    package let loop: EventLoop
    package let peerAddress: SocketAddress?
    /// Whether the peer is on this machine, even if it used a public address of this machine.
    package let isLocal: Bool
    let version: LinkProtocol
    let role: Role
    let socket: SocketStream
    let buffers: RelayBuffers
    private let createdAt: Milliseconds
    private let handshakeDeadline: Milliseconds
    weak var delegate: (any LinkTransportDelegate)?
    /// At the gateway: admits connections before their handshake.
    package weak var gatekeeper: (any LinkGatekeeper)?
    var channel: (any SecureChannel)?
    var phase: Phase
    /// The beginning of an incomplete frame.
    private var partial = ByteQueue()
    var readBudget = ReadBudget()
    /// Accounts for the socket's queued bytes in the process's memory budget.
    private var outputShare: BudgetShare
    /// Nil at the agent.
    private var meter: TransportMeter?
    /// The number of unacknowledged bytes at the last tick.
    private var lastUnacknowledged = 0
    var blackHole: BlackHoleWatch
    /// Runs while the handshake waits.
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

    /// Starts reading, and on the dialling side the handshake.
    func start() {
        self.socket.delegate = self
        self.socket.setNoDelay()
        self.socket.setUserTimeout(milliseconds: self.version.userTimeout)
        self.socket.setNotSentLowWater(bytes: Self.notSentBytes)
        self.socket.startReading()
        // Version 1 has no pings of its own, so the kernel probes the peer.
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

    /// At the agent: the maximum segment size in bytes for the next link, if large packets seemed to be lost on this
    /// one; otherwise nil.
    package var advisedSegment: Int? { self.blackHole.isLikely ? BlackHoleWatch.smallSegment : nil }

    /// The link counts as stuck: checks again whether large packets seem to be lost.
    package func stuck(hasStreams: Bool) {
        guard let sending = self.socket.sending else { return }
        self.blackHole.look(
            sending, unacknowledged: self.socket.unacknowledgedByteCount, hasStreams: hasStreams, isStuck: true,
            now: self.loop.now)
    }

    var localAddress: SocketAddress? { self.socket.localAddress }

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
            // Send the TLS alert with the reason.
            self.writeEncrypted()
            return self.close(.security(error))
        }
        self.writeEncrypted()
        if !wasEstablished, let peer = channel.peer, let end = self.delegate?.transport(self, didSecure: peer) {
            return self.close(end)
        }
        let handled = self.deliver(UnsafeRawBufferPointer(rebasing: plain[0..<(carried + count)]), new: count)
        self.readBudget.spent(
            bytes: bytes.count, records: channel.recordsReceived - recordsBefore, frames: handled.frames,
            edges: handled.edges, now: self.loop.now)
        if channel.isClosedByPeer { self.close(.closedByPeer) }
    }

    /// Passes decrypted bytes to the session, and keeps the beginning of the next frame. A session that hands this
    /// transport to another one leaves the rest of the bytes to it.
    private func deliver(_ batch: UnsafeRawBufferPointer, new: Int) -> HandledBatch {
        var total = HandledBatch(used: 0, frames: 0, edges: 0)
        while let delegate = self.delegate {
            let rest = UnsafeRawBufferPointer(rebasing: batch[total.used...])
            let handled = delegate.transport(self, didReceive: rest, new: min(new, rest.count))
            total.used += handled.used
            total.frames += handled.frames
            total.edges += handled.edges
            guard self.isOpen else { return total }
            guard self.delegate === delegate else { continue }
            self.partial.append(UnsafeRawBufferPointer(rebasing: batch[total.used...]))
            return total
        }
        self.close(.ended(.internalError, "the link has no session"))
        return total
    }

    /// Bytes that only the two ends of this connection can know; nil in version 1.
    func exportKey(label: String, count: Int) -> [UInt8]? { self.channel?.exportKey(label: label, count: count) }

    /// Pauses reading until received bytes have been handled.
    func pauseReading() { self.socket.stopReading() }

    func resumeReading() { self.socket.startReading() }

    // MARK: - Bytes that are sent

    /// Whether the kernel has taken all bytes written so far.
    var canSend: Bool { self.socket.queuedByteCount == 0 && !self.socket.isBroken }

    /// Encrypts bytes. ``writeEncrypted()`` then writes them to the socket.
    ///
    /// - Precondition: the handshake is complete.
    func encrypt(_ bytes: UnsafeRawBufferPointer) throws(SecurityError) {
        try self.channel?.encrypt(bytes, output: &self.buffers.cipher)
    }

    /// Closes the connection after ``encrypt(_:)`` has failed. Empties the shared buffer, so that bytes of this link do
    /// not reach another.
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

    /// Records the number of bytes in the socket's queue.
    func outputQueued(_ count: Int) {
        self.outputShare.set(count)
        self.meter?.queued(count)
    }

    /// Whether the peer has acknowledged queued bytes since the last call.
    private func isOutputMoving() -> Bool {
        guard self.socket.queuedByteCount > 0 else { return false }
        let count = self.socket.unacknowledgedByteCount
        defer { self.lastUnacknowledged = count }
        return count != self.lastUnacknowledged
    }

    // MARK: - Time and the end

    /// Checks the deadlines. Call it about once a second.
    ///
    /// - Parameter hasStreams: whether the peer has a reason to send large packets.
    /// - Returns: whether the peer has acknowledged queued bytes since the last call.
    func tick(isPastLogin: Bool, hasStreams: Bool) -> Bool {
        let now = self.loop.now
        switch self.phase {
        case .closing, .closed: return false
        case .lingering(let until, let end):
            // Let bytes that still make progress finish: they are the tail of streams that ended in order.
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

    /// Sends the end of the connection after all encrypted bytes, and closes when the peer has read it or
    /// `milliseconds` have passed.
    func linger(_ end: LinkEnd, for milliseconds: Milliseconds) {
        guard self.isOpen else { return }
        self.endWait()
        if let channel = self.channel, channel.isEstablished {
            channel.close(output: &self.buffers.cipher)
            // In version 1 an agent sends no closing message, so there is nothing to wait for.
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
        // Closing the socket drops its queue.
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
