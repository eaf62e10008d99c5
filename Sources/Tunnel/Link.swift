internal import Bytes
package import Timing
package import Wire

/// One end of a link: the multiplexer.
/// It speaks protocol version 2 (`docs/protocol.md`); see ``LinkMachine`` for how it is driven.
///
/// ## States
/// See ``LinkPhase`` for the link and `SendHalf`, `ReceiveHalf`, `Opening` for a stream.
///
/// ## Invariants
/// - On no stream more is sent than the peer's limit, or received than ours.
/// - What the peer can make this end hold is bounded: `linkBudget` and the floor windows for data, `owedControl` for
///   control frames, `maximumStreams` for streams.
/// - A slot stays taken until the driver has released it, so an edge never meets another stream's bytes.
/// - Once closed, nothing changes any more.
package struct Link: ~Copyable, LinkMachine {
    package let role: Role
    package private(set) var limits: LinkLimits
    package internal(set) var phase = LinkPhase.awaitingHello
    package internal(set) var statistics = LinkStatistics()
    /// The peer's HELLO, once it came.
    package internal(set) var peer: Hello?
    /// The shortest time between a PING and its PONG; 0 until the first PONG, so that windows stay small till then.
    ///
    /// The shortest, as the others include time in queues. A way through the network that has become longer is not
    /// seen; it would rarely keep its TCP connection.
    package internal(set) var roundTrip: Milliseconds = 0

    var streams = StreamTable()
    var lastOpened: UInt32 = 0
    /// Streams that the agent has not accepted yet, in all and by exposure.
    var pendingOpens = 0
    var pendingByExposure: [UInt16: Int] = [:]
    /// Frames for ended streams that an honest peer may still send.
    var lateAllowance = 0
    /// REGISTER frames without an answer.
    var answersAwaited = 0
    /// The peer has said GOAWAY(drain).
    var hasPeerLeft = false
    /// What ``takeHits()`` gives next.
    var hits = LinkHits()
    let budget: ByteBudget
    var registerBucket: TokenBucket
    var glitchBucket: TokenBucket
    /// At the agent: opens that the gateway takes back before they are accepted.
    var withdrawnOpens: TokenBucket

    /// Frames that are ready to be sent, in order.
    var outbox = ByteQueue()
    /// Frames of the link itself, which go before all data.
    var control = ByteQueue()
    /// The driver's word that the socket cannot take more now.
    var isCongested = false
    /// Streams that became active; each goes first once.
    var fresh = Ring<StreamKey>()
    var active = Ring<StreamKey>()
    /// Streams whose new limit must be announced: kept as a list, so that however slowly the peer reads, one WINDOW
    /// frame a stream is owed at most.
    var windows = Ring<StreamKey>()
    /// Starved streams that can take bytes again.
    var resumable = Ring<StreamKey>()

    var createdAt: Milliseconds
    var lastReceived: Milliseconds
    var lastOutputProgress: Milliseconds
    var ping: (sentAt: Milliseconds, opaque: UInt64)?
    var pingCount: UInt64 = 0
    var hasMeasured = false
    var lastPingReceived: Milliseconds?
    var deadline: Milliseconds?

    /// - Parameters:
    ///   - budget: the process's budget; the link's own is carved from it.
    ///   - now: the time of the TCP connection, from which the login's deadline counts.
    package init(role: Role, limits: LinkLimits, budget: ByteBudget?, now: Milliseconds) {
        self.role = role
        self.limits = limits
        self.budget = ByteBudget(limit: limits.linkBudget, parent: budget)
        self.registerBucket = TokenBucket(burst: limits.registerBurst, perSecond: limits.registersPerSecond, now: now)
        self.glitchBucket = TokenBucket(burst: limits.glitchBurst, perSecond: limits.glitchesPerSecond, now: now)
        self.withdrawnOpens = TokenBucket(
            burst: limits.withdrawnOpenBurst, perSecond: limits.withdrawnOpensPerSecond, now: now)
        self.createdAt = now
        self.lastReceived = now
        self.lastOutputProgress = now
    }

    package var streamCount: Int { self.streams.count }

    /// Ids are never used twice.
    package var isWornOut: Bool { self.lastOpened >= self.limits.lastStream }

    /// Bytes that the peers of this link could still make us hold, or that we hold.
    package var grantedBytes: Int { self.budget.used }

    package var outboxCount: Int { self.outbox.count }
    package var framesReceived: UInt64 { self.statistics.framesReceived }

    package var needsFlush: Bool {
        !self.outbox.isEmpty || !self.control.isEmpty || !self.windows.isEmpty || !self.fresh.isEmpty
            || !self.active.isEmpty || !self.resumable.isEmpty
    }

    // MARK: - Commands of both roles

    package mutating func start(software: String) {
        Hello(
            streamWindow: UInt32(self.limits.helloWindow), maximumStreams: UInt32(self.limits.maximumStreams),
            software: software, listedKinds: self.role == .gateway ? Register.Kind.known : nil
        ).encode(into: &self.control)
    }

    package mutating func goAway(_ code: ErrorCode, retryAfterSeconds: UInt16, text: String) {
        guard self.phase != .closed else { return }
        GoAway(code: code, retryAfterSeconds: retryAfterSeconds, text: text).encode(into: &self.control)
        self.phase = code == .drain && self.phase.isPastLogin ? .leaving : .closed
    }

    package mutating func shut() {
        self.phase = .closed
        // What they wait for will not be sent.
        for slot in 0..<self.streams.slotLimit where self.streams.isLive(slot) && self.streams[slot].isOrphan {
            self.remove(slot)
        }
    }

    package mutating func reset(_ key: StreamKey, _ code: ErrorCode) {
        guard self.streams.contains(key), !self.streams[key.slot].isReset, !self.streams[key.slot].isResetting else {
            return
        }
        var hasEnded = false
        if case .finishing = self.streams[key.slot].send { hasEnded = true }
        // A FIN that waits is part of what goes first.
        guard hasEnded || !self.streams[key.slot].queue.isEmpty, self.phase.isPastLogin else {
            return self.cut(key, code)
        }
        self.streams[key.slot].send = .resetting(code, finFirst: hasEnded)
        self.endReceiving(key.slot)
    }

    package mutating func cut(_ key: StreamKey, _ code: ErrorCode) {
        guard self.streams.contains(key), !self.streams[key.slot].isReset else { return }
        let isComplete = self.streams[key.slot].isComplete
        if !self.streams[key.slot].isResetting { self.endReceiving(key.slot) }
        self.endSending(key.slot)
        // The edge is gone, and so is the call to `release`.
        if self.streams[key.slot].isOrphan { self.remove(key.slot) }
        guard !isComplete, self.phase.isPastLogin else { return }
        NumberFrame.encode(.reset, id: key.id, code.rawValue, into: &self.control)
        self.statistics.resetsSent += 1
    }

    /// A stream whose end is only queued keeps its slot until FIN or RESET is sent; one that was still running is reset.
    package mutating func release(_ key: StreamKey) {
        guard self.streams.contains(key) else { return }
        // On a link that is over nothing that is queued will be sent.
        guard self.phase != .closed else { return self.remove(key.slot) }
        if case .finishing = self.streams[key.slot].send, case .ended = self.streams[key.slot].receive,
            self.streams[key.slot].receiveCredit.pending == 0
        {
            self.streams[key.slot].isOrphan = true
            return
        }
        if !self.streams[key.slot].isComplete { self.reset(key, .aborted) }
        guard self.streams.contains(key) else { return }
        if self.streams[key.slot].isResetting {
            self.streams[key.slot].isOrphan = true
        } else {
            self.remove(key.slot)
        }
    }

    /// Frees a slot.
    mutating func remove(_ slot: Int) {
        self.endOpening(slot)
        self.streams[slot].receiveCredit.abandon(budget: self.budget)
        self.dropQueue(slot)
        self.streams.remove(slot)
        self.statistics.streamsClosed += 1
        self.expectLateFrames(bytes: 0)
    }

    // MARK: - Commands of the gateway

    package mutating func acceptLogin(_ welcome: Welcome, now: Milliseconds) {
        guard self.phase == .authenticating else { return }
        welcome.encode(into: &self.control)
        self.phase = .up
        self.deadline = nil
        self.sendPing(now: now)
    }

    package mutating func allow(streams: Int, names: Int, now: Milliseconds) {
        self.limits.allow(streams: streams, names: names)
        self.registerBucket = TokenBucket(
            burst: self.limits.registerBurst, perSecond: self.limits.registersPerSecond, now: now)
    }

    package mutating func answerRegister(_ answer: Registered) {
        guard self.phase.isPastLogin else { return }
        answer.encode(into: &self.control)
    }

    /// An exposure may have as many pending opens as it leaves to the others, and at least `minPendingOpens`: a
    /// backend that hangs never uses up all of them.
    package func obstacle(toOpening exposure: UInt16) -> OpenObstacle? {
        guard self.phase == .up else { return .notUp }
        guard self.control.count < self.limits.owedControl / 2 else { return .owedControl }
        let left = self.limits.pendingOpens - self.pendingOpens
        let isFull = self.pendingByExposure[exposure, default: 0] >= max(left, self.limits.minPendingOpens)
        return isFull ? .pendingOpens : nil
    }

    package var isFull: Bool {
        self.streams.count >= min(self.limits.maximumStreams, Int(self.peer?.maximumStreams ?? 0))
    }

    /// Nothing can be spared: each stream of this version ends by itself.
    package mutating func makeRoom() -> StreamKey? { nil }

    package mutating func open(
        exposure: UInt16, visitor: WireAddress, local: WireAddress, now: Milliseconds
    ) -> StreamKey? {
        guard self.obstacle(toOpening: exposure) == nil, !self.isFull, let peer = self.peer,
            self.lastOpened < UInt32.max
        else {
            return nil
        }
        self.lastOpened += 1
        let window = self.startWindow()
        let stream = Stream(
            id: self.lastOpened, exposure: exposure,
            opening: .awaitingAccept(deadline: now + self.limits.acceptDeadline),
            sendCredit: SendCredit(limit: UInt64(peer.streamWindow)),
            receiveCredit: ReceiveCredit(window: window, budget: self.budget, now: now),
            lastActivity: now, lastProgress: now)
        Open(exposure: exposure, limit: UInt64(window), visitor: visitor, local: local)
            .encode(id: self.lastOpened, into: &self.control)
        let slot = self.streams.insert(stream)
        self.beganOpening(exposure)
        self.statistics.streamsOpened += 1
        return StreamKey(slot: slot, id: self.lastOpened)
    }

    // MARK: - Commands of the agent

    package mutating func login(_ login: Login) {
        login.encode(into: &self.control)
    }

    package mutating func register(_ register: Register) {
        guard self.phase == .up else { return }
        self.answersAwaited += 1
        register.encode(into: &self.control)
    }

    package mutating func unregister(_ exposure: UInt16) {
        guard self.phase == .up else { return }
        NumberFrame.encode(.unregister, exposure, into: &self.control)
    }

    package mutating func accept(_ key: StreamKey, now: Milliseconds) {
        guard self.streams.contains(key), !self.streams[key.slot].isReset else { return }
        guard case .awaitingAccept = self.streams[key.slot].opening else { return }
        self.endOpening(key.slot)
        self.streams[key.slot].lastActivity = now
        self.streams[key.slot].lastProgress = now
        let window = self.startWindow()
        if case .open = self.streams[key.slot].receive {
            self.streams[key.slot].receiveCredit.widen(to: window, budget: self.budget)
        }
        let limit = self.streams[key.slot].receiveCredit.announce()
        NumberFrame.encode(.accept, id: key.id, limit, into: &self.control)
    }

    // MARK: - Shared parts

    /// The window that a new stream gets.
    private mutating func startWindow() -> Int {
        let window = ReceiveCredit.startWindow(self.limits, self.budget)
        if window < self.limits.startWindow { self.hits.reducedWindows += 1 }
        return window
    }

    mutating func beganOpening(_ exposure: UInt16) {
        self.pendingOpens += 1
        self.pendingByExposure[exposure, default: 0] += 1
    }

    mutating func endOpening(_ slot: Int) {
        guard case .awaitingAccept = self.streams[slot].opening else { return }
        self.streams[slot].opening = .accepted
        self.pendingOpens -= 1
        let exposure = self.streams[slot].exposure
        let left = self.pendingByExposure[exposure, default: 1] - 1
        self.pendingByExposure[exposure] = left > 0 ? left : nil
    }

    /// Our direction is over: nothing is sent any more, and what is queued is dropped.
    mutating func endSending(_ slot: Int) {
        self.endOpening(slot)
        self.dropQueue(slot)
        self.streams[slot].send = .reset
    }

    /// The peer's direction is over, by our RESET: it may not have heard of it yet, so its frames still come.
    mutating func endReceiving(_ slot: Int) {
        if case .open = self.streams[slot].receive {
            self.expectLateFrames(bytes: self.streams[slot].receiveCredit.unused)
        }
        self.streams[slot].receiveCredit.close(budget: self.budget)
        self.streams[slot].receive = .reset
    }

    mutating func dropQueue(_ slot: Int) {
        self.streams[slot].queue.removeAll()
        self.releaseQueue(slot)
    }

    /// Gives the memory of an empty queue back.
    mutating func releaseQueue(_ slot: Int) {
        self.streams[slot].queue.releaseStorageIfEmpty()
        self.streams[slot].chargeQueue(self.budget)
    }

    /// Frames for a stream that we have ended may come as long as the peer has not heard of it. They are not glitches.
    mutating func expectLateFrames(bytes: Int) {
        let frames = self.limits.lateFrames + bytes / self.limits.lateFrameBytes
        self.lateAllowance = min(self.lateAllowance + frames, self.limits.maxLateFrames)
    }

    mutating func sendPing(now: Milliseconds) {
        self.pingCount += 1
        self.ping = (now, self.pingCount)
        NumberFrame.encode(.ping, self.pingCount, into: &self.control)
    }
}

/// Counters of a link since it began.
package struct LinkStatistics: Equatable, Sendable {
    package var framesReceived: UInt64 = 0
    package var dataFramesSent: UInt64 = 0
    package var windowFramesReceived: UInt64 = 0
    package var pingsReceived: UInt64 = 0
    package var bytesSent: UInt64 = 0
    package var bytesReceived: UInt64 = 0
    package var streamsOpened: UInt64 = 0
    package var streamsClosed: UInt64 = 0
    package var resetsSent: UInt64 = 0
    package var resetsReceived: UInt64 = 0
    /// Frames for streams that were closed already.
    package var lateFrames: UInt64 = 0
    /// Frames of unknown type that were skipped.
    package var unknownFrames: UInt64 = 0
    /// Harmless oddities.
    package var glitches: UInt64 = 0
}
