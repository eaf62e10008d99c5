package import Reactor
internal import Secure
package import Timing
package import Tunnel
package import Wire

/// One link: the multiplexer, and the edges of its streams. A ``LinkTransport`` carries its bytes.
package final class LinkSession {
    /// What is encrypted and handed to the kernel at once.
    static let flushBytes = 64 * 1024

    private enum State {
        /// It has a transport, which may be ending.
        case carried
        /// The transport is gone, edges are not.
        case emptying
        case empty
    }

    package let loop: EventLoop
    package let transport: LinkTransport
    package var delegate: (any LinkSessionDelegate)?
    let software: String
    /// Call its commands and then `setNeedsFlush`.
    var machine: any LinkMachine & ~Copyable
    private var state = State.carried
    /// By slot.
    private(set) var edges: [Edge?] = []
    private var edgeCount = 0
    /// Edges that the batch which is being handled has bytes for.
    var touched: [Edge] = []
    var needsFlush = false
    /// Nil at the agent.
    var meter: LinkMeter?
    /// Streams that the clock has ended and whose edges are still open.
    var expired: [(StreamKey, StreamExpiry)] = []
    /// Made when a stream is too slow for what comes for the first time.
    var inputHold: InputHold?

    /// - Parameter software: what HELLO tells of this program.
    package init(
        transport: LinkTransport, limits: LinkLimits, budget: ByteBudget?, software: String, meter: RelayMeter? = nil
    ) {
        self.loop = transport.loop
        self.transport = transport
        self.software = software
        self.meter = meter.map { LinkMeter($0) }
        self.machine = transport.version.machine(
            role: transport.role, limits: limits, budget: budget, now: transport.loop.now)
        transport.delegate = self
    }

    package func start() { self.transport.start() }

    // MARK: - What it is like

    package var isOpen: Bool { self.transport.isOpen }

    /// Why it ends or has ended; nil while it is open, and once it is empty.
    package var ending: LinkEnd? {
        if case .empty = self.state { nil } else { self.transport.ending }
    }

    /// How far the multiplexer has come.
    package var phase: LinkPhase { self.machine.phase }

    /// Streams that exist, also those that only wait for their edge to close.
    package var streamCount: Int { self.machine.streamCount }

    /// Streams that wait for a peer which has taken or granted nothing since `before`.
    package func stalledStreams(before: Milliseconds) -> [(StreamKey, since: Milliseconds)] {
        var stalled: [(StreamKey, since: Milliseconds)] = []
        if self.isOpen { self.machine.stalledStreams(before: before, into: &stalled) }
        return stalled
    }

    /// Whether a stream has waited since then without progress.
    package func isStalled(_ key: StreamKey, since: Milliseconds) -> Bool {
        self.isOpen && self.edge(key) != nil && self.machine.stalledSince(key) == since
    }

    // MARK: - Edges

    package var openEdges: [Edge] { self.edges.compactMap(\.self) }

    var hasEdges: Bool { self.edgeCount > 0 }

    func edge(_ key: StreamKey) -> Edge? {
        guard key.slot < self.edges.count, let edge = self.edges[key.slot], edge.key == key else { return nil }
        return edge
    }

    /// Binds a stream to its edge: to the visitor's socket, or to nothing until the backend is connected.
    func attach(_ key: StreamKey, exposure: UInt16, visitor: WireAddress, socket: SocketStream?) -> Edge {
        precondition(self.isOpen, "a stream was attached to a link that is closed")
        while self.edges.count <= key.slot { self.edges.append(nil) }
        let edge = Edge(key: key, exposure: exposure, visitor: visitor, socket: socket, link: self)
        self.edges[key.slot] = edge
        self.edgeCount += 1
        self.setNeedsFlush()
        return edge
    }

    func edgeClosed(_ edge: Edge, _ end: StreamEnd) {
        self.machine.release(edge.key)
        self.meter?.closed(edge.key)
        if self.edge(edge.key) != nil { self.edges[edge.key.slot] = nil }
        self.edgeCount -= 1
        self.setNeedsFlush()
        self.delegate?.link(self, streamEnded: edge, end)
        self.finishIfEmpty()
    }

    /// Resets a stream and cuts its edge.
    package func abort(_ key: StreamKey, _ code: ErrorCode) {
        self.machine.cut(key, code)
        self.setNeedsFlush()
        self.readAgain()
        self.edge(key)?.abort(.abandoned(code))
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

    /// Cuts the streams that still get what came over the link before its end.
    package func cutDeliveries() {
        for case let edge? in self.edges { edge.abort(.abandoned(.withdrawn)) }
    }

    // MARK: - Time

    /// The machine slept: find out at once whether the peer is still there.
    package func clockJumped() {
        guard self.isOpen else { return }
        self.machine.clockJumped(now: self.loop.now)
        self.setNeedsFlush()
    }

    /// Looks at the deadlines; call it about once a second.
    package func tick() {
        let isMoving = self.transport.tick(isPastLogin: self.phase.isPastLogin, hasStreams: self.hasEdges)
        guard self.isOpen else { return }
        let now = self.loop.now
        if isMoving { self.machine.outputProgressed(now: now) }
        for case let edge? in self.edges {
            if edge.isMoving { self.machine.progressed(edge.key, now: now) }
            edge.tick(now: now)
        }
        let verdict = self.machine.tick(now: now, expired: &self.expired)
        self.countExpired()
        self.endExpired()
        self.takeHits()
        if case .close(let code) = verdict {
            if code == .handshakeTimeout { self.hit(.loginTimeout) }
            return self.linger(.ended(code, ""))
        }
        if self.machine.needsFlush { self.setNeedsFlush() }
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

    // MARK: - The end

    /// Ends the link after telling the peer why.
    package func end(_ code: ErrorCode, retryAfterSeconds: UInt16 = 0, text: String = "") {
        guard self.isOpen else { return }
        // Without keys no GOAWAY can be sent.
        guard self.transport.isEstablished else { return self.close(.ended(code, text)) }
        self.machine.goAway(code, retryAfterSeconds: retryAfterSeconds, text: text)
        let isMere = code == .none || code == .drain
        self.linger(
            .ended(code, text), for: isMere ? LinkTransport.shortLingerMilliseconds : LinkTransport.lingerMilliseconds)
    }

    /// Takes nothing new and lets the streams that run finish.
    package func drain(retryAfterSeconds: UInt16 = 0, text: String) {
        self.machine.goAway(.drain, retryAfterSeconds: retryAfterSeconds, text: text)
        self.setNeedsFlush()
    }

    /// Closes at once.
    package func close(_ end: LinkEnd) { self.transport.close(end) }

    /// Sends the last words, and closes when the peer has read them or the time for that is over.
    func linger(_ end: LinkEnd, for milliseconds: Milliseconds = LinkTransport.lingerMilliseconds) {
        guard self.isOpen else { return }
        if self.inputHold?.end() ?? false { self.transport.resumeReading() }
        if self.transport.isEstablished {
            // Also when the link is congested: these are a few frames, and without them the peer would take the end
            // for an accident and come back.
            self.machine.fill(0, now: self.loop.now)
            guard self.encryptOutbox() else { return }
        }
        self.transport.linger(end, for: milliseconds)
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

    private func finishIfEmpty() {
        guard case .emptying = self.state, self.edgeCount == 0 else { return }
        self.state = .empty
        let delegate = self.delegate
        self.delegate = nil
        delegate?.linkDidEmpty(self)
    }
}

extension LinkSession: LinkTransportDelegate {
    func transport(_ transport: LinkTransport, didSecure peer: ChannelPeer) -> LinkEnd? {
        switch self.delegate?.link(self, didSecure: peer) {
        case nil: return .ended(.internalError, "the link has no owner")
        case .refuse(let error): return .security(error)
        case .proceed(let login):
            self.machine.start(software: self.software)
            if let login { self.machine.login(login) }
            self.setNeedsFlush()
            return nil
        }
    }

    func transport(_ transport: LinkTransport, didReceive batch: UnsafeRawBufferPointer, new: Int) -> HandledBatch {
        if new > 0 { self.machine.heard(now: self.loop.now) }
        return self.handle(batch)
    }

    func transportDidSend(_ transport: LinkTransport) {
        self.machine.outputProgressed(now: self.loop.now)
        guard transport.canSend else { return }
        self.machine.congestion(false, now: self.loop.now)
        self.setNeedsFlush()
    }

    /// Until the peer's last words are read, nothing more is given to the socket.
    func transportDidBreak(_ transport: LinkTransport) {
        self.machine.congestion(true, now: self.loop.now)
    }

    func transportIsEnding(_ transport: LinkTransport) { self.delegate?.linkIsEnding(self) }

    func transport(_ transport: LinkTransport, stops end: LinkEnd) {
        if !transport.isLingering {
            self.machine.shut()
            self.inputHold?.close()
            self.inputHold = nil
        }
        self.endEdges(end)
    }

    func transportDidClose(_ transport: LinkTransport, _ end: LinkEnd) {
        self.state = .emptying
        self.takeHits()
        self.delegate?.linkDidEnd(self, end)
        self.finishIfEmpty()
    }
}
