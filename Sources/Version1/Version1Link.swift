internal import Bytes
package import Timing
package import Tunnel
package import Wire

/// One end of a link of protocol version 1, the protocol of the original diglett (`docs/version-1.md`).
///
/// ## Invariants
/// - If the driver reads at most `readSize` bytes of the link between two checks of `takesInput`, at most `slowStream`
///   plus one read wait for any edge.
/// - Output is bounded: edges do not read while the link's socket is full, and answers to the peer's frames are left
///   out beyond `owedControl`.
/// - A closed link queues no more frames and accepts nothing.
package struct Version1Link: ~Copyable, LinkMachine {
    /// The stage of the link in detail. The driver sees ``phase``.
    enum Stage {
        /// Gateway: waiting for Login. Agent: waiting for the answer to Login.
        case login
        /// Gateway: the authenticator is checking the login.
        case authenticating
        /// Gateway: waiting for Register. Agent: must send Register.
        case name
        /// Waiting for the answer to Register. At the gateway the driver gives it, at the agent the peer.
        case naming(registration: UInt16)
        /// Gateway: waiting for FinishRegister.
        case finish(registration: UInt16)
        /// Streams may be opened.
        case open
        /// Open streams finish. No new ones are opened.
        case leaving
        case closed
    }

    let role: Role
    var limits: Version1Limits
    var stage = Stage.login
    let budget: ByteBudget
    /// Indexed by slot.
    var streams: [Stream] = []
    var freeSlots: [Int] = []
    /// Slots of the streams on the wire, by wire id.
    var index: [UInt32: Int] = [:]
    var nextSerial: UInt32 = 1
    /// Number of streams on the wire.
    var liveCount = 0
    /// Gateway only.
    var ids = StreamIDs(registration: 0)
    /// Agent only.
    var closed: ClosedStreams
    var outbox = ByteQueue()
    var isCongested = false
    /// Streams whose edges have stopped reading.
    var starved = Ring<StreamKey>()
    /// Streams that hold up the link.
    var slow: [StreamKey] = []
    /// Returned by the next ``takeHits()``.
    private var hits = LinkHits()
    /// The stream of the payload being received, and how many bytes of it are left. Without a stream they are dropped.
    var payload: (key: StreamKey?, remaining: Int) = (nil, 0)
    /// The name was refused: the link ends at the next tick.
    var refusal: ErrorCode?
    /// Start of the wait for the peer's next step of the login.
    var stageBegan: Milliseconds
    /// The last time that the driver passed.
    var clock: Milliseconds
    var lastOutputProgress: Milliseconds

    /// - Parameters:
    ///   - budget: the process's budget, the parent of the link's own.
    ///   - now: the time of the TCP connection, when the login's deadline starts.
    package init(role: Role, limits: Version1Limits, budget: ByteBudget?, now: Milliseconds) {
        self.role = role
        self.limits = limits
        self.budget = ByteBudget(limit: limits.linkBudget, parent: budget)
        self.closed = ClosedStreams(span: limits.stragglers, atMost: limits.rememberedStreams)
        self.stageBegan = now
        self.clock = now
        self.lastOutputProgress = now
    }

    package var phase: LinkPhase {
        switch (self.stage, self.role) {
        case (.login, .gateway): .awaitingLogin
        case (.login, .agent): .awaitingWelcome
        case (.authenticating, _): .authenticating
        case (.name, _), (.naming, _), (.finish, _), (.open, _): .up
        case (.leaving, _): .leaving
        case (.closed, _): .closed
        }
    }

    package var streamCount: Int { self.streams.count - self.freeSlots.count }
    package var outboxCount: Int { self.outbox.count }
    package internal(set) var framesReceived: UInt64 = 0
    package var needsFlush: Bool { !self.outbox.isEmpty || (!self.isCongested && !self.starved.isEmpty) }
    package var takesInput: Bool { self.slow.isEmpty }
    /// Always false: stream ids are reused.
    package var isWornOut: Bool { false }
    /// Bytes that wait for the edges of this link.
    package var waitingBytes: Int { self.budget.used }

    package mutating func takeHits() -> LinkHits {
        defer { self.hits = LinkHits() }
        return self.hits
    }

    /// Counts a stream that holds up the link earlier because memory is short.
    mutating func waitsForMemory() { self.hits.reducedWindows += 1 }

    // MARK: - The link

    /// Does nothing: version 1 has no HELLO.
    package mutating func start(software: String) {}

    package mutating func login(_ login: Login) {
        self.append(.login, text: login.token)
    }

    package mutating func acceptLogin(_ welcome: Welcome, now: Milliseconds) {
        guard case .authenticating = self.stage else { return }
        self.append(.ok)
        self.stage = .name
        self.stageBegan = now
    }

    package mutating func register(_ register: Register) {
        guard case .name = self.stage else { return }
        self.append(.register, id: UInt32(register.exposure), text: register.name)
        self.stage = .naming(registration: register.exposure)
    }

    package mutating func unregister(_ exposure: UInt16) {}

    package mutating func allow(streams: Int, names: Int, now: Milliseconds) {
        self.limits.maximumStreams = streams
    }

    package mutating func answerRegister(_ answer: Registered) {
        switch (self.stage, answer.code) {
        case (.closed, _): return
        case (.naming(let registration), .none):
            self.append(.ok)
            self.stage = .finish(registration: registration)
            self.stageBegan = self.clock
        case (_, .none): return
        case (.naming, let code), (.finish, let code):
            self.append(.error, text: Self.text(of: code, answer.text))
            self.refusal = code
        case (_, let code):
            // A link of this version has one name and is useless without it.
            self.refusal = code
        }
    }

    package mutating func goAway(_ code: ErrorCode, retryAfterSeconds: UInt16, text: String) {
        switch self.stage {
        case .closed: return
        case .login, .authenticating, .name, .naming, .finish:
            if self.role == .gateway { self.append(.error, text: Self.text(of: code, text)) }
            self.stage = .closed
        case .open, .leaving:
            // No frame can announce this: an agent treats Error as a protocol violation, and no gateway ever sent
            // Terminate.
            self.stage = code == .drain ? .leaving : .closed
        }
    }

    package mutating func shut() { self.stage = .closed }

    /// Uses the texts of the original where it has them, because its users search logs for them.
    private static func text(of code: ErrorCode, _ text: String) -> String {
        switch code {
        case .loginRefused: "authentication error: invalid token"
        case .nameNotAllowed: "not authorized to use this domain"
        default: text
        }
    }

    /// The code for a gateway's Error. Only the refusals that the original knows are permanent.
    static func code(of text: String) -> ErrorCode {
        if text.hasPrefix("authentication error") { return .loginRefused }
        return text == "not authorized to use this domain" ? .nameNotAllowed : .denied
    }

    mutating func append(_ kind: FrameKind, id: UInt32 = 0, text: String = "") {
        let bytes = Array(text.utf8.prefix(FrameHeader.maximumControl))
        appendHeader(kind, id: id, length: bytes.count, to: &self.outbox)
        self.outbox.append(bytes)
    }

    // MARK: - Streams

    package func obstacle(toOpening exposure: UInt16) -> OpenObstacle? {
        if case .open = self.stage { nil } else { .notUp }
    }

    /// The peer no longer counts streams that only wait for their edge to close. They are limited separately, by
    /// twice the maximum of all streams.
    package var isFull: Bool {
        self.liveCount >= self.limits.maximumStreams || self.streamCount >= 2 * self.limits.maximumStreams
    }

    package mutating func makeRoom() -> StreamKey? {
        guard self.liveCount >= self.limits.maximumStreams else { return nil }
        // First streams that are probably done, then visitors that have sent nothing and are unknown to the agent, then
        // visitors without an answer. Among equals the one that has been quiet for the longest.
        func rank(_ stream: Stream) -> Int? {
            switch stream.state {
            case .halfClosed: stream.pending > 0 ? nil : stream.hasAnswer ? 0 : 2
            case .waiting: 1
            case .open, .closedByPeer, .over, .free: nil
            }
        }
        var best: (rank: Int, activity: Milliseconds, key: StreamKey)?
        for stream in self.streams {
            guard let rank = rank(stream) else { continue }
            if let best, (best.rank, best.activity) <= (rank, stream.lastActivity) { continue }
            best = (rank, stream.lastActivity, stream.key)
        }
        guard let key = best?.key else { return nil }
        self.end(key.slot)
        return key
    }

    /// Sends nothing: the agent learns of the stream from its first bytes. It never learns of a visitor that waits for
    /// the server to speak first, so such protocols do not work with version 1.
    package mutating func open(
        exposure: UInt16, visitor: WireAddress, local: WireAddress, now: Milliseconds
    ) -> StreamKey? {
        guard self.obstacle(toOpening: exposure) == nil, !self.isFull, let id = self.ids.take() else { return nil }
        self.clock = now
        return self.insert(id, .waiting)
    }

    mutating func insert(_ wireID: UInt32, _ state: Stream.State) -> StreamKey {
        let slot = self.freeSlots.popLast() ?? self.streams.count
        let key = StreamKey(slot: slot, id: self.nextSerial)
        self.nextSerial &+= 1
        let stream = Stream(
            wireID: wireID, key: key, state: state, isConnected: self.role == .gateway, lastActivity: self.clock,
            lastProgress: self.clock)
        if slot == self.streams.count { self.streams.append(stream) } else { self.streams[slot] = stream }
        self.index[wireID] = slot
        self.liveCount += 1
        return key
    }

    func contains(_ key: StreamKey) -> Bool {
        guard key.slot < self.streams.count, self.streams[key.slot].key == key else { return false }
        if case .free = self.streams[key.slot].state { return false }
        return true
    }

    /// The edge's bytes are already in the outbox, so `Close` follows them.
    package mutating func reset(_ key: StreamKey, _ code: ErrorCode) { self.cut(key, code) }

    package mutating func cut(_ key: StreamKey, _ code: ErrorCode) {
        guard self.contains(key) else { return }
        self.end(key.slot)
        self.forgetPending(key.slot)
    }

    package mutating func release(_ key: StreamKey) {
        guard self.contains(key) else { return }
        self.end(key.slot)
        self.forgetPending(key.slot)
        if self.role == .gateway { self.ids.give(self.streams[key.slot].wireID) }
        self.streams[key.slot].state = .free
        self.freeSlots.append(key.slot)
        guard self.freeSlots.count == self.streams.count else { return }
        self.streams.removeAll()
        self.freeSlots.removeAll()
    }

    /// Ends a stream on the wire in both directions. Bytes received before are still written to the edge.
    mutating func end(_ slot: Int) {
        let stream = self.streams[slot]
        switch stream.state {
        case .over, .free: return
        case .waiting, .closedByPeer: break
        case .open, .halfClosed:
            if case .closed = self.stage { break }
            self.append(.close, id: stream.wireID)
            if self.role == .agent { self.closed.insert(stream.wireID, now: self.clock) }
        }
        self.leaveWire(slot, .over)
    }

    /// Detaches the stream from its wire id.
    mutating func leaveWire(_ slot: Int, _ state: Stream.State) {
        if self.streams[slot].isOnWire {
            self.index[self.streams[slot].wireID] = nil
            self.liveCount -= 1
        }
        self.streams[slot].state = state
    }

    mutating func forgetPending(_ slot: Int) {
        self.budget.give(self.streams[slot].pending)
        self.streams[slot].pending = 0
        self.judge(slot)
    }
}
