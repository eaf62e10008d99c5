internal import Bytes
package import Reactor
package import Secure
package import Timing
package import Tunnel
package import Wire

/// Drives one link: its socket, its encryption, the multiplexer and the edges of the streams.
package final class LinkConnection {
    /// How long the peer may take to read our last words.
    private static let lingerMilliseconds: Milliseconds = 5_000
    /// The same when it does not matter whether the peer reads them, as the end of the connection says enough.
    private static let shortLingerMilliseconds: Milliseconds = 1_000
    /// How much longer, while bytes before them are still moving.
    private static let maxLinger: Milliseconds = 30_000
    /// The kernel asks a silent peer whether it is there; one that has vanished is found after
    /// `TCP_USER_TIMEOUT`, which replaces the count (tcp(7)).
    private static let keepAlive: (idle: Int32, interval: Int32, count: Int32) = (15, 10, 3)
    /// What may wait unsent in the kernel; more only delays what is urgent.
    private static let notSentBytes: UInt32 = 128 * 1024
    /// What is encrypted and handed to the kernel at once.
    static let flushBytes = 64 * 1024

    package let loop: EventLoop
    package let peerAddress: SocketAddress?
    /// Whether the other end is a program of this machine, whatever address it was reached by.
    package let isLocal: Bool
    /// The multiplexer; call its commands and then `setNeedsFlush`.
    package var link: any Multiplexer & ~Copyable
    package var delegate: (any LinkConnectionDelegate)?
    /// As the gateway: decides before the handshake.
    package weak var gatekeeper: (any LinkGatekeeper)?
    let socket: SocketStream
    let version: LinkProtocol
    private let role: Role
    let buffers: RelayBuffers
    let software: String
    package let createdAt: Milliseconds
    private let handshakeDeadline: Milliseconds
    var channel: (any SecureChannel)?
    var phase: Phase
    /// By slot.
    private(set) var edges: [Edge?] = []
    private var edgeCount = 0
    /// Edges that the batch which is being handled has bytes for, and how many those of the last one were.
    var touched: [Edge] = []
    var edgesTouched = 0
    /// The beginning of a frame that is not yet whole.
    var partial = ByteQueue()
    var readBudget = ReadBudget()
    var needsFlush = false
    /// What the socket holds of our bytes, in the process's budget.
    private var outputShare: BudgetShare
    /// Nil at the agent.
    var meter: LinkMeter?
    /// What the kernel held of our bytes at the last tick.
    private var lastUnacknowledged = 0
    /// When the peer's last bytes came.
    var heardAt: Milliseconds
    private var blackHole = BlackHoleWatch()
    var expired: [(StreamKey, StreamExpiry)] = []
    /// Made when a stream is too slow for what comes for the first time.
    var inputHold: InputHold?
    /// While the handshake waits.
    var waitTimer: LoopTimer?

    package init(
        socket: SocketStream, version: LinkProtocol, role: Role, limits: LinkLimits, budget: ByteBudget?,
        buffers: RelayBuffers, software: String, meter: RelayMeter? = nil
    ) throws(SecurityError) {
        self.loop = socket.loop
        self.socket = socket
        self.version = version
        self.role = role
        self.buffers = buffers
        self.software = software
        self.meter = meter.map { LinkMeter($0) }
        self.outputShare = BudgetShare(budget)
        self.peerAddress = socket.peerAddress
        let (peer, own) = (socket.peerAddress, socket.localAddress)
        self.isLocal = peer.map { $0.isLoopback || $0.host == own?.host } ?? false
        self.createdAt = socket.loop.now
        self.heardAt = socket.loop.now
        self.handshakeDeadline = limits.handshakeDeadline
        self.link = version.machine(role: role, limits: limits, budget: budget, now: socket.loop.now)
        self.phase = .silent(Greeting(version))
        if role == .agent {
            self.phase = .open
            self.channel = try version.channel(isServer: false)
        }
    }

    /// Starts reading, and as the dialling side the handshake.
    package func start() {
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
            self.writeCipher()
        } catch {
            self.buffers.cipher.removeAll()
            self.close(.security(error))
        }
    }

    /// As the agent: the largest segment for the next link, if this one ended as if larger packets did not pass.
    package var advisedSegment: Int? { self.blackHole.isLikely ? BlackHoleWatch.smallSegment : nil }

    package var openEdges: [Edge] { self.edges.compactMap(\.self) }

    package func edge(_ key: StreamKey) -> Edge? {
        guard key.slot < self.edges.count, let edge = self.edges[key.slot], edge.key == key else { return nil }
        return edge
    }

    // MARK: - Commands

    /// Sends what the machine has put into its outbox, at the end of this turn.
    package func setNeedsFlush() {
        guard !self.needsFlush else { return }
        self.needsFlush = true
        self.loop.atTurnEnd(self)
    }

    /// Why the agent cannot take another stream of an exposure now; nil when it can.
    package func obstacle(toOpening exposure: UInt16) -> OpenObstacle? {
        self.isOpen ? self.link.obstacle(toOpening: exposure) : .notUp
    }

    /// Whether the link has room for another stream, where possible by ending one that can be spared.
    package func makeRoom() -> Bool {
        if let key = self.link.makeRoom() {
            self.edge(key)?.finish()
            self.setNeedsFlush()
        }
        return !self.link.isFull
    }

    /// Binds a stream to its edge: to the visitor's socket, or to nothing until the backend is connected.
    @discardableResult
    package func attach(_ key: StreamKey, exposure: UInt16, visitor: WireAddress, socket: SocketStream?) -> Edge {
        precondition(self.isOpen, "a stream was attached to a link that is closed")
        while self.edges.count <= key.slot { self.edges.append(nil) }
        let edge = Edge(key: key, exposure: exposure, visitor: visitor, socket: socket, connection: self)
        self.edges[key.slot] = edge
        self.edgeCount += 1
        self.setNeedsFlush()
        return edge
    }

    /// As the agent: the backend is connected and gets `preface` first. Closes it if the stream is gone meanwhile.
    package func accept(_ key: StreamKey, backend socket: SocketStream, preface: [UInt8] = []) {
        guard let edge = self.edge(key) else { return socket.close() }
        if self.isOpen { self.link.accept(key, now: self.loop.now) }
        edge.connected(socket, preface: preface)
        self.setNeedsFlush()
    }

    /// Resets a stream and cuts its edge.
    package func abort(_ key: StreamKey, _ code: ErrorCode) {
        self.link.cut(key, code)
        self.setNeedsFlush()
        self.readAgain()
        self.edge(key)?.abort(.abandoned(code))
    }

    /// Streams that wait for a peer which has taken or granted nothing since `before`.
    package func stalledStreams(before: Milliseconds) -> [(StreamKey, since: Milliseconds)] {
        var stalled: [(StreamKey, since: Milliseconds)] = []
        if self.isOpen { self.link.stalledStreams(before: before, into: &stalled) }
        return stalled
    }

    /// Whether a stream has waited since then without progress.
    package func isStalled(_ key: StreamKey, since: Milliseconds) -> Bool {
        self.isOpen && self.edge(key) != nil && self.link.stalledSince(key) == since
    }

    /// Resets all streams of an exposure and cuts their edges.
    package func abortStreams(of exposure: UInt16, _ code: ErrorCode) {
        self.abortStreams(code) { $0.exposure == exposure }
    }

    /// Resets all streams for which it holds, and returns how many that were.
    @discardableResult
    package func abortStreams(_ code: ErrorCode, where holds: (Edge) -> Bool) -> Int {
        let edges = self.openEdges.filter(holds)
        for edge in edges { self.abort(edge.key, code) }
        return edges.count
    }

    /// Ends the link after telling the peer why.
    package func end(_ code: ErrorCode, retryAfterSeconds: UInt16 = 0, text: String = "") {
        guard self.isOpen else { return }
        // Before the handshake is over there is no way to say anything.
        guard self.channel?.isEstablished ?? false else { return self.close(.ended(code, text)) }
        self.link.goAway(code, retryAfterSeconds: retryAfterSeconds, text: text)
        let isMere = code == .none || code == .drain
        self.linger(.ended(code, text), for: isMere ? Self.shortLingerMilliseconds : Self.lingerMilliseconds)
    }

    /// Takes nothing new and lets the streams that run finish.
    package func drain(retryAfterSeconds: UInt16 = 0, text: String) {
        self.link.goAway(.drain, retryAfterSeconds: retryAfterSeconds, text: text)
        self.setNeedsFlush()
    }

    /// Closes at once.
    package func close(_ end: LinkEnd) {
        switch self.phase {
        case .closing, .emptying, .closed: return
        case .lingering(_, let first): self.phase = .closing(first)
        case .silent, .waiting, .open:
            self.phase = .closing(end)
            self.delegate?.linkIsEnding(self)
        }
        self.endWait()
        self.link.shut()
        self.inputHold?.close()
        self.inputHold = nil
        self.endEdges(end)
        // The queue ends with the socket.
        self.outputQueued(0)
        self.socket.close()
    }

    /// The machine slept: find out at once whether the peer is still there.
    package func clockJumped() {
        guard self.isOpen else { return }
        self.link.clockJumped(now: self.loop.now)
        self.setNeedsFlush()
    }

    /// Looks at the deadlines; call it about once a second.
    package func tick() {
        switch self.phase {
        case .closing, .emptying, .closed: return
        case .lingering(let until, let end):
            // What still moves may finish: it is the tail of streams that have ended in order.
            if self.loop.now >= until, !self.isOutputMoving() || self.loop.now >= until + Self.maxLinger {
                self.close(end)
            }
        case .silent, .waiting, .open:
            let now = self.loop.now
            if self.channel?.isEstablished != true, now - self.createdAt >= self.handshakeDeadline {
                self.hit(.handshakeTimeout)
                return self.close(.ended(.handshakeTimeout, "the handshake took too long"))
            }
            for case let edge? in self.edges {
                if edge.isMoving { self.link.progressed(edge.key, now: now) }
                edge.tick(now: now)
            }
            if self.isOutputMoving() { self.link.outputProgressed(now: now) }
            if self.role == .agent, let sending = self.socket.sending {
                self.blackHole.look(
                    sending, unacknowledged: self.socket.unacknowledgedByteCount, heard: self.heardAt,
                    hasStreams: self.edgeCount > 0, now: now)
            }
            if self.link.phase.isPastLogin { self.channel?.allowMessage() }
            let verdict = self.link.tick(now: now, expired: &self.expired)
            self.countExpired()
            self.endExpired()
            self.takeHits()
            if case .close(let code) = verdict {
                if code == .handshakeTimeout { self.hit(.loginTimeout) }
                return self.linger(.ended(code, ""))
            }
            if self.link.needsFlush { self.setNeedsFlush() }
            self.partial.releaseStorageIfEmpty()
        }
    }

    /// The socket holds so many of our bytes.
    func outputQueued(_ count: Int) {
        self.outputShare.set(count)
        self.meter?.queued(count)
    }

    func endExpired() {
        for (key, expiry) in self.expired {
            switch expiry {
            case .reset(let code): self.edge(key)?.abort(.abandoned(code))
            case .finish: self.edge(key)?.finish()
            }
        }
        self.expired.removeAll(keepingCapacity: true)
    }

    /// Whether the peer has taken some of what waits for the socket since this was last asked.
    private func isOutputMoving() -> Bool {
        guard self.socket.queuedByteCount > 0 else { return false }
        let count = self.socket.unacknowledgedByteCount
        defer { self.lastUnacknowledged = count }
        return count != self.lastUnacknowledged
    }

    /// Sends the last words, and closes when the peer has read them or the time for that is over.
    func linger(_ end: LinkEnd, for milliseconds: Milliseconds = LinkConnection.lingerMilliseconds) {
        guard self.isOpen else { return }
        self.endWait()
        if self.inputHold?.end() ?? false { self.socket.startReading() }
        if let channel = self.channel, channel.isEstablished {
            // Also when the link is congested: these are a few frames, and without them the peer would take the end
            // for an accident and come back.
            self.link.fill(0, now: self.loop.now)
            guard self.encryptOutbox(channel) else { return }
            channel.close(output: &self.buffers.cipher)
            // An agent of version 1 has no last words, and whoever hears nothing need not be waited for.
            let isSilent = self.buffers.cipher.isEmpty && self.socket.queuedByteCount == 0
            self.writeCipher()
            if isSilent, self.role == .agent { return self.close(end) }
        }
        self.phase = .lingering(until: self.loop.now + milliseconds, end)
        self.delegate?.linkIsEnding(self)
        self.endEdges(end)
        self.socket.shutdownWriting()
    }

    /// Bytes received over the link still reach the edges, unless the end of the link must stop them.
    private func endEdges(_ end: LinkEnd) {
        for case let edge? in self.edges {
            if end.cutsStreams {
                edge.abort(.abandoned(end.streamCode))
            } else {
                edge.endAfterDelivery(.abandoned(end.streamCode))
            }
        }
    }

    /// Cuts the streams that still get what came over the link before its end.
    package func cutDeliveries() {
        for case let edge? in self.edges { edge.abort(.abandoned(.withdrawn)) }
    }

    // MARK: - For the edges

    func sendAllowance(_ key: StreamKey) -> Int {
        self.isOpen ? self.link.sendAllowance(key) : 0
    }

    func send(_ key: StreamKey, _ bytes: UnsafeRawBufferPointer) {
        self.link.send(key, bytes.bytes, now: self.loop.now)
        self.meter?.taken(key, bytes.count)
        // Bulk goes out at once, while it is in the cache; small frames wait for the end of the turn and share a
        // record and a write.
        if self.link.outboxCount >= Self.flushBytes { self.flush() } else { self.setNeedsFlush() }
    }

    /// True when nothing will come from the link for this stream any more.
    func finish(_ key: StreamKey) -> Bool {
        self.setNeedsFlush()
        return self.link.finish(key, now: self.loop.now)
    }

    func consumed(_ key: StreamKey, _ count: Int) {
        self.link.consumed(key, count, now: self.loop.now)
        self.meter?.delivered(key, count)
        self.setNeedsFlush()
        self.readAgain()
    }

    func reset(_ key: StreamKey, _ code: ErrorCode) {
        self.link.reset(key, code)
        self.setNeedsFlush()
        self.readAgain()
    }

    func edgeClosed(_ edge: Edge, _ end: StreamEnd) {
        self.link.release(edge.key)
        self.meter?.closed(edge.key)
        if self.edge(edge.key) != nil { self.edges[edge.key.slot] = nil }
        self.edgeCount -= 1
        self.setNeedsFlush()
        self.delegate?.link(self, streamEnded: edge, end)
        self.finishIfEmpty()
    }

    func socketClosed() {
        guard case .closing(let end) = self.phase else { return }
        self.phase = .emptying(end)
        self.takeHits()
        self.delegate?.linkDidEnd(self, end)
        self.finishIfEmpty()
    }

    private func finishIfEmpty() {
        guard case .emptying = self.phase, self.edgeCount == 0 else { return }
        self.phase = .closed
        let delegate = self.delegate
        self.delegate = nil
        delegate?.linkDidEmpty(self)
    }
}
