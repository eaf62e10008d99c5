package import Reactor
internal import Secure
package import Timing
package import Tunnel
package import Wire

/// One link: the multiplexer and the edges of its streams. A ``LinkTransport`` carries its bytes.
///
/// ```
///   carried ── the connection breaks ──► detached ── resumed ──► carried
///      │                                     │
///      └── the link ends ──► emptying ◄──────┘ ended, or not resumed in time
///                               └── all edges are closed ──► empty
/// ```
package final class LinkSession {
    /// How many bytes are encrypted and passed to the kernel at once.
    static let flushBytes = 64 * 1024

    private enum State {
        /// The transport exists, but may be ending.
        case carried
        /// The transport has broken, and the next one may come.
        case detached(since: Milliseconds)
        /// The link ends while it is detached.
        case ending(LinkEnd)
        /// The transport is closed, but edges are still open. The end of a link that was detached is stored.
        case emptying(LinkEnd?)
        case empty
    }

    package let loop: EventLoop
    /// The present transport, or the last one.
    package internal(set) var transport: LinkTransport
    /// Strong reference, released before `linkDidEmpty`.
    package var delegate: (any LinkSessionDelegate)?
    let software: String
    /// After a command to the machine, call `setNeedsFlush`.
    var machine: any LinkMachine & ~Copyable
    private var state = State.carried
    /// Indexed by stream slot.
    private(set) var edges: [Edge?] = []
    private var edgeCount = 0
    /// Edges with bytes in the current batch.
    var touched: [Edge] = []
    var needsFlush = false
    /// Nil at the agent.
    var meter: LinkMeter?
    /// Streams that a deadline has ended and whose edges are still open.
    var expired: [(StreamKey, StreamExpiry)] = []
    /// Created the first time a stream is too slow.
    var inputHold: InputHold?
    /// Whether it is in the list of the ``Acknowledger``.
    var awaitsAcknowledgement = false

    /// - Parameter software: how this program identifies itself in HELLO.
    package init(
        transport: LinkTransport, limits: LinkLimits, budget: ByteBudget?, software: String, meter: RelayMeter? = nil
    ) {
        self.loop = transport.loop
        self.transport = transport
        self.software = software
        self.meter = meter.map { LinkMeter($0) }
        self.machine = transport.version.machine(
            role: transport.role, limits: limits, budget: budget, blocks: transport.buffers.blocks,
            now: transport.loop.now)
        transport.delegate = self
    }

    package func start() { self.transport.start() }

    // MARK: - What it is like

    /// Whether the link is neither ending nor ended. It may be without a connection.
    package var isOpen: Bool {
        switch self.state {
        case .carried: self.transport.isOpen
        case .detached: true
        case .ending, .emptying, .empty: false
        }
    }

    /// Since when the link waits for its next connection; nil if it does not.
    package var detachedSince: Milliseconds? {
        if case .detached(let since) = self.state { since } else { nil }
    }

    /// Why the link is ending or has ended; nil while it is open, and after all edges have closed.
    package var ending: LinkEnd? {
        switch self.state {
        case .carried: self.transport.ending
        case .detached, .empty: nil
        case .ending(let end): end
        case .emptying(let end): end ?? self.transport.ending
        }
    }

    /// The phase of the multiplexer.
    package var phase: LinkPhase { self.machine.phase }

    /// The number of streams, including those that only wait for their edge to close.
    package var streamCount: Int { self.machine.streamCount }

    /// Streams whose peer has taken or granted nothing since `before` or earlier.
    package func stalledStreams(before: Milliseconds) -> [(StreamKey, since: Milliseconds)] {
        var stalled: [(StreamKey, since: Milliseconds)] = []
        if self.isOpen { self.machine.stalledStreams(before: before, into: &stalled) }
        return stalled
    }

    /// Whether a stream has been stalled since exactly that time, that is, without progress in between.
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

    /// Creates the edge of a stream. At the gateway it gets the visitor's socket; at the agent it has none until the
    /// backend is connected.
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

    /// Resets a stream and its edge at once.
    package func abort(_ key: StreamKey, _ code: ErrorCode) {
        self.machine.cut(key, code)
        self.setNeedsFlush()
        self.readAgain()
        self.edge(key)?.abort(.abandoned(code))
    }

    /// Resets all streams of an exposure and their edges at once.
    package func abortStreams(of exposure: UInt16, _ code: ErrorCode) {
        self.abortStreams(code) { $0.exposure == exposure }
    }

    /// Resets all streams that match, and returns their number.
    @discardableResult
    package func abortStreams(_ code: ErrorCode, where holds: (Edge) -> Bool) -> Int {
        let edges = self.openEdges.filter(holds)
        for edge in edges { self.abort(edge.key, code) }
        return edges.count
    }

    /// Resets the streams that still deliver bytes received before the end of the link.
    package func cutDeliveries() {
        for case let edge? in self.edges { edge.abort(.abandoned(.withdrawn)) }
    }

    // MARK: - Time

    /// The computer was suspended: check at once whether the peer is still there.
    package func clockJumped() {
        guard self.isCarried else { return }
        self.machine.clockJumped(now: self.loop.now)
        self.setNeedsFlush()
    }

    /// Checks the deadlines. Call it about once a second.
    package func tick() {
        let isMoving =
            self.detachedSince == nil
            && self.transport.tick(isPastLogin: self.phase.isPastLogin, hasStreams: self.hasEdges)
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
        switch verdict {
        case .close(let code):
            if code == .handshakeTimeout { self.hit(.loginTimeout) }
            return self.linger(.ended(code, ""))
        case .lost(let code): return self.transport.close(.ended(code, ""))
        case .expired:
            self.hit(.resumeWindow)
            return self.close(.ended(.dead, "not resumed within \(self.machine.resumeWindow / 1_000) s"))
        case .none: break
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

    /// Ends the link, and sends the peer a GOAWAY with the reason if the handshake is complete.
    package func end(_ code: ErrorCode, retryAfterSeconds: UInt16 = 0, text: String = "") {
        guard self.isOpen else { return }
        // Before the handshake is complete, no GOAWAY can be sent. Nor can it without a connection.
        guard self.isCarried, self.transport.isEstablished else { return self.close(.ended(code, text)) }
        self.machine.goAway(code, retryAfterSeconds: retryAfterSeconds, text: text)
        let isMere = code == .none || code == .drain
        self.linger(
            .ended(code, text), for: isMere ? LinkTransport.shortLingerMilliseconds : LinkTransport.lingerMilliseconds)
    }

    /// Accepts no new streams, and lets the open ones finish.
    package func drain(retryAfterSeconds: UInt16 = 0, text: String) {
        self.machine.goAway(.drain, retryAfterSeconds: retryAfterSeconds, text: text)
        self.setNeedsFlush()
    }

    /// Closes at once.
    package func close(_ end: LinkEnd) {
        self.machine.forbidResuming()
        if case .detached = self.state { self.endDetached(end) } else { self.transport.close(end) }
    }

    /// Sends the remaining control frames (such as GOAWAY), and closes when the peer has read them or `milliseconds`
    /// have passed.
    func linger(_ end: LinkEnd, for milliseconds: Milliseconds = LinkTransport.lingerMilliseconds) {
        guard self.isOpen else { return }
        self.machine.forbidResuming()
        guard self.isCarried else { return self.endDetached(end) }
        if self.inputHold?.end() ?? false { self.transport.resumeReading() }
        if self.transport.isEstablished {
            // Even if the link is congested: these are few frames, and without them the peer would take the end for a
            // failure and reconnect.
            self.machine.fill(0, now: self.loop.now)
            // What a former connection lost is still sent: it is the tail of streams that have ended in order.
            while self.machine.outboxCount > 0 {
                guard self.encryptOutbox(atMost: EventLoop.readBufferSize) else { return }
                self.transport.writeEncrypted()
            }
        }
        self.transport.linger(end, for: milliseconds)
    }

    /// Ends all edges. Bytes already received over the link are still delivered, unless the kind of end forbids it.
    func endEdges(_ end: LinkEnd) {
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

    // MARK: - Between two connections

    /// Whether a connection carries the link and is not ending.
    var isCarried: Bool {
        if case .carried = self.state { self.transport.isOpen } else { false }
    }

    /// Whether the link outlives the end of its connection.
    private func survives(_ end: LinkEnd) -> Bool {
        guard self.machine.canResume else { return false }
        switch end {
        case .closedByPeer, .failed, .security, .ended(.dead, _), .ended(.stalled, _): return true
        case .otherProtocol, .violation, .ended, .goAway: return false
        }
    }

    private func detach(_ end: LinkEnd) {
        // Its socket may still be closing when the next connection has taken its place.
        self.transport.delegate = nil
        self.state = .detached(since: self.loop.now)
        self.machine.detach(now: self.loop.now)
        self.stopAcknowledging()
        self.takeHits()
        self.delegate?.linkDidDetach(self, end)
    }

    /// Ends a link that has no connection.
    private func endDetached(_ end: LinkEnd) {
        guard case .detached = self.state else { return }
        // Edges without a socket close at once; `linkDidEmpty` must follow `linkDidEnd`.
        self.state = .ending(end)
        self.delegate?.linkIsEnding(self)
        self.machine.shut()
        self.endEdges(end)
        self.state = .emptying(end)
        self.takeHits()
        self.delegate?.linkDidEnd(self, end)
        self.finishIfEmpty()
    }

    /// Hands over the connection. This link has ended and reports nothing more.
    func release() -> LinkTransport {
        self.flush()
        self.state = .empty
        self.delegate = nil
        self.transport.delegate = nil
        self.machine.shut()
        return self.transport
    }

    /// Continues on the connection of `greeter`, whose machine has agreed.
    func carry(on greeter: LinkSession) {
        switch self.state {
        case .carried:
            // Nothing more is read from the former connection.
            self.transport.delegate = nil
            self.transport.close(.ended(.replaced, ""))
            self.meter?.resumed(after: 0)
        case .detached(let since): self.meter?.resumed(after: self.loop.now - since)
        case .ending, .emptying, .empty: preconditionFailure("a link was resumed after its end")
        }
        self.transport = greeter.release()
        self.transport.delegate = self
        self.state = .carried
        self.setNeedsFlush()
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

    /// Treats the link as congested, so that nothing more is written while the peer's last bytes are read.
    func transportDidBreak(_ transport: LinkTransport) {
        self.machine.congestion(true, now: self.loop.now)
    }

    func transportIsEnding(_ transport: LinkTransport) {
        guard let end = transport.ending, !self.survives(end) else { return }
        self.delegate?.linkIsEnding(self)
    }

    func transport(_ transport: LinkTransport, stops end: LinkEnd) {
        if self.survives(end) { return self.detach(end) }
        self.stopAcknowledging()
        if !transport.isLingering {
            self.machine.shut()
            self.inputHold?.close()
            self.inputHold = nil
        }
        self.endEdges(end)
    }

    func transportDidClose(_ transport: LinkTransport, _ end: LinkEnd) {
        guard case .carried = self.state else { return }
        self.state = .emptying(nil)
        self.takeHits()
        self.delegate?.linkDidEnd(self, end)
        self.finishIfEmpty()
    }
}
