package import Bytes
package import Timing
package import Wire

/// One end of a link of protocol version 2 (`docs/protocol.md`): the multiplexer. See ``Multiplexer`` for how to drive
/// it.
///
/// ## States
/// See ``LinkPhase`` for the link and `SendHalf`, `ReceiveHalf`, `Opening` for a stream.
///
/// ## Invariants
/// - No stream sends beyond the peer's limit or receives beyond ours.
/// - What the peer can make this end hold is bounded: data by `linkBudget` and the floor windows, control frames by
///   `owedControl`, streams by `maximumStreams`.
/// - A slot stays taken until the driver releases it, so an edge never receives another stream's bytes.
/// - A closed link sends nothing but a last GOAWAY, and accepts nothing.
/// - What the peer of a session has not acknowledged is kept, up to `keepBound` bytes and the control frames.
package struct Link: ~Copyable, LinkMachine {
    package let role: Role
    package private(set) var limits: LinkLimits
    package internal(set) var phase = LinkPhase.awaitingHello
    package internal(set) var statistics = LinkStatistics()
    /// The peer's HELLO, once it has arrived.
    package internal(set) var peer: Hello?
    /// The shortest time between a PING and its PONG; 0 until the first PONG, which keeps windows small until then.
    ///
    /// The shortest, because longer ones include time in queues. A network path that has become longer is not noticed,
    /// but the TCP connection would rarely survive such a change.
    package internal(set) var roundTrip: Milliseconds = 0

    var streams = StreamTable()
    var lastOpened: UInt32 = 0
    /// Streams that the agent has not accepted yet: in total, and by exposure.
    var pendingOpens = 0
    var pendingByExposure: [UInt16: Int] = [:]
    /// Frames that an honest peer may still send for streams that have ended here.
    var lateAllowance = 0
    /// REGISTER frames that have no answer yet.
    var answersAwaited = 0
    /// The peer has sent GOAWAY(drain).
    var hasPeerLeft = false
    /// Returned by the next ``takeHits()``.
    var hits = LinkHits()
    let budget: ByteBudget
    var registerBucket: TokenBucket
    var glitchBucket: TokenBucket
    /// At the agent: OPENs that the gateway resets before they are accepted.
    var withdrawnOpens: TokenBucket

    /// Counted frames ready to be sent, in order, and in a session those that are kept.
    var outbox: SentFrames
    /// Frames that are not counted. They go first, and end with their carrier.
    var urgent = ByteQueue()
    /// Counted control frames. They go before all data.
    var control = ByteQueue()
    /// The GOAWAY that ends the link, after all other frames.
    var farewell = ByteQueue()
    /// True while the driver reports that the socket takes no more bytes, and without a carrier.
    var isCongested = false
    var session: Session?
    var acknowledgements: Acknowledgements
    var keepBound: KeepBound
    var keptShare: BudgetShare
    /// Streams that became active. Each goes first once, then joins `active`.
    var fresh = Ring<StreamKey>()
    var active = Ring<StreamKey>()
    /// Streams that owe a WINDOW. The frames are encoded only when sent, so a peer that reads slowly is owed at most
    /// one per stream.
    var windows = Ring<StreamKey>()
    /// Starved streams whose edges may read again.
    var resumable = Ring<StreamKey>()

    var createdAt: Milliseconds
    var lastReceived: Milliseconds
    var lastOutputProgress: Milliseconds
    var ping: (sentAt: Milliseconds, opaque: UInt64)?
    var pingCount: UInt64 = 0
    var hasMeasured = false
    /// PINGs of the present carrier.
    var carrierPings: (sent: UInt64, received: UInt64) = (0, 0)
    var lastPingReceived: Milliseconds?
    /// When the last counted frame arrived.
    var lastCounted: Milliseconds = 0
    /// Since when the peer has acknowledged nothing of what was sent. Not valid while everything is acknowledged.
    var unacknowledgedSince: Milliseconds = 0
    var lastPingSent: Milliseconds = 0
    /// Bytes of `control` that were requested on former carriers.
    var exemptControl = 0
    /// The connection had its one RESUME.
    var hasTriedToResume = false
    var deadline: Milliseconds?

    /// - Parameters:
    ///   - budget: the process's budget, the parent of the link's own.
    ///   - blocks: memory for frames, shared by all links of a loop.
    ///   - now: the time of the TCP connection, when the login's deadline starts.
    package init(
        role: Role, limits: LinkLimits, budget: ByteBudget?, blocks: BlockPool = BlockPool(), now: Milliseconds
    ) {
        self.role = role
        self.limits = limits
        let own = ByteBudget(limit: limits.linkBudget, parent: budget)
        self.budget = own
        self.outbox = SentFrames(pool: blocks)
        self.acknowledgements = Acknowledgements(interval: limits.acknowledgedBytes)
        self.keepBound = KeepBound(first: limits.firstKept, max: limits.maxKept)
        self.keptShare = BudgetShare(own)
        self.registerBucket = TokenBucket(burst: limits.registerBurst, perSecond: limits.registersPerSecond, now: now)
        self.glitchBucket = TokenBucket(burst: limits.glitchBurst, perSecond: limits.glitchesPerSecond, now: now)
        self.withdrawnOpens = TokenBucket(
            burst: limits.withdrawnOpenBurst, perSecond: limits.withdrawnOpensPerSecond, now: now)
        self.createdAt = now
        self.lastReceived = now
        self.lastOutputProgress = now
    }

    package var streamCount: Int { self.streams.count }

    /// Stream ids are never reused, so a link must be replaced before it runs out of them.
    package var isWornOut: Bool { self.lastOpened >= self.limits.lastStream }

    /// Bytes charged to the link's budget: those that peers may still make us hold, and those we hold.
    package var grantedBytes: Int { self.budget.used }

    package var outboxCount: Int { self.urgent.count + self.outbox.unsent + self.farewell.count }
    package var framesReceived: UInt64 { self.statistics.framesReceived }

    package var needsFlush: Bool {
        self.outboxCount > 0 || !self.control.isEmpty || !self.windows.isEmpty || !self.fresh.isEmpty
            || !self.active.isEmpty || !self.resumable.isEmpty || self.isAcknowledgementDue
    }

    // MARK: - Commands of both roles

    package mutating func start(software: String) {
        // The peer acknowledges as often as the promise requires. It holds also when memory becomes short later.
        if self.budget.pressure != .none {
            let kept = min(self.limits.firstKept, self.limits.pressureKept)
            self.keepBound = KeepBound(first: kept, max: self.limits.maxKept)
        }
        Hello(
            streamWindow: UInt32(self.limits.helloWindow), maximumStreams: UInt32(self.limits.maximumStreams),
            software: software, listedKinds: self.role == .gateway ? Register.Kind.known : nil,
            keeps: self.limits.resumeWindow > 0 ? UInt32(self.keepBound.bytes) : nil,
            resumeWindow: self.limits.resumeWindow > 0 ? UInt32(self.limits.resumeWindow / 1_000) : nil
        ).encode(into: &self.urgent)
    }

    package mutating func goAway(_ code: ErrorCode, retryAfterSeconds: UInt16, text: String) {
        guard self.phase != .closed else { return }
        let frame = GoAway(code: code, retryAfterSeconds: retryAfterSeconds, text: text)
        if code == .drain, self.phase.isPastLogin {
            frame.encode(into: &self.control)
            self.phase = .leaving
        } else {
            frame.encode(into: &self.farewell)
            self.phase = .closed
        }
    }

    package mutating func shut() {
        self.phase = .closed
        self.dropKept()
        // The FIN or RESET for which orphans keep their slots will not be sent.
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
        // A queued FIN also goes before the RESET.
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
        // The edge is gone, so the driver will not call `release` again.
        if self.streams[key.slot].isOrphan { self.remove(key.slot) }
        guard !isComplete, self.phase.isPastLogin else { return }
        NumberFrame.encode(.reset, id: key.id, code.rawValue, into: &self.control)
        self.statistics.resetsSent += 1
    }

    /// A stream whose end is queued keeps its slot until FIN or RESET is sent. A stream that is still open is reset.
    package mutating func release(_ key: StreamKey) {
        guard self.streams.contains(key) else { return }
        // A closed link sends nothing that is queued.
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

    /// Frees a slot and returns its memory to the budget.
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
        var welcome = welcome
        welcome.session = self.begin(welcome.session)
        welcome.encode(into: &self.urgent)
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

    /// An exposure may have as many pending opens as are left over, and at least `minPendingOpens`. A backend that
    /// hangs therefore cannot use all of them.
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

    /// Always nil: streams of version 2 end without help from the link, so none can be spared.
    package mutating func makeRoom() -> StreamKey? { nil }

    package mutating func open(
        exposure: UInt16, visitor: WireAddress, local: WireAddress, now: Milliseconds
    ) -> StreamKey? {
        guard self.obstacle(toOpening: exposure) == nil, !self.isFull, let peer = self.peer,
            self.lastOpened < UInt32.max
        else {
            return nil
        }
        let now = self.streamTime(now)
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
        login.encode(into: &self.urgent)
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
        let now = self.streamTime(now)
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

    /// The window of a new stream. Counts a hit if the budget reduces it.
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

    /// Ends our direction: nothing more is sent, and queued bytes are dropped.
    mutating func endSending(_ slot: Int) {
        self.endOpening(slot)
        self.dropQueue(slot)
        self.streams[slot].send = .reset
    }

    /// Ends the peer's direction by our RESET. The peer's frames keep arriving until it reads the RESET.
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

    /// Frees the memory of an empty queue.
    mutating func releaseQueue(_ slot: Int) {
        self.streams[slot].queue.releaseStorageIfEmpty()
        self.streams[slot].chargeQueue(self.budget)
    }

    /// Allows for frames of a stream that has ended here: until the peer learns of the end, its frames are not
    /// glitches.
    ///
    /// - Parameter bytes: what the peer could still send on the stream.
    mutating func expectLateFrames(bytes: Int) {
        let frames = self.limits.lateFrames + bytes / self.limits.lateFrameBytes
        self.lateAllowance = min(self.lateAllowance + frames, self.limits.maxLateFrames)
    }

    mutating func sendPing(now: Milliseconds) {
        self.pingCount += 1
        self.carrierPings.sent += 1
        self.ping = (now, self.pingCount)
        self.lastPingSent = now
        NumberFrame.encode(.ping, self.pingCount, into: &self.urgent)
    }
}

/// Counters since the link began.
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
    /// Frames for streams that were already closed.
    package var lateFrames: UInt64 = 0
    /// Skipped frames of unknown types.
    package var unknownFrames: UInt64 = 0
    /// Needless but harmless frames.
    package var glitches: UInt64 = 0
}
