internal import Bytes
package import Timing
package import Tunnel
package import Wire

/// One end of a link of protocol version 1, that of the original diglett (`docs/version-1.md`).
///
/// ## Invariants
/// - Where the driver reads at most `readSize` bytes of the link between two looks at `takesInput`, at most
///   `slowStream` and one read wait for any edge.
/// - What waits to be sent is bounded: edges read nothing while the link's socket is full, and frames that answer the
///   peer's are left out beyond `owedControl`.
/// - Once closed, nothing changes any more.
package struct Version1Link: ~Copyable, LinkMachine {
    /// How far the link has come; see ``phase`` for what the driver is told.
    enum Stage {
        /// Gateway: waits for Login. Agent: waits for the answer to it.
        case login
        /// Gateway: the authenticator is at work.
        case authenticating
        /// Gateway: waits for Register. Agent: is told to register.
        case name
        /// The answer to Register is awaited, from the registry or from the gateway.
        case naming(registration: UInt16)
        /// Gateway: waits for FinishRegister.
        case finish(registration: UInt16)
        /// Streams run.
        case open
        /// Streams run, no new ones.
        case leaving
        case closed
    }

    let role: Role
    var limits: Version1Limits
    var stage = Stage.login
    let budget: ByteBudget
    /// By slot.
    var streams: [Stream] = []
    var freeSlots: [Int] = []
    /// Slots of streams that are on the wire, by their id there.
    var index: [UInt32: Int] = [:]
    var nextSerial: UInt32 = 1
    /// Streams that are on the wire.
    var liveCount = 0
    /// Gateway only.
    var ids = StreamIDs(registration: 0)
    /// Agent only.
    var closed: ClosedStreams
    var outbox = ByteQueue()
    var isCongested = false
    /// Streams whose edge does not read.
    var starved = Ring<StreamKey>()
    /// Streams that keep the link waiting.
    var slow: [StreamKey] = []
    /// What ``takeHits()`` gives next.
    private var hits = LinkHits()
    /// What is left of the payload that is being received, and whose it is.
    var payload: (key: StreamKey?, remaining: Int) = (nil, 0)
    /// The name was refused: the link ends at the next tick.
    var refusal: ErrorCode?
    /// Since when the peer's next step of the login is waited for.
    var stageBegan: Milliseconds
    /// The last time that the driver told.
    var clock: Milliseconds
    var lastOutputProgress: Milliseconds

    /// - Parameters:
    ///   - budget: the process's budget; the link's own is carved from it.
    ///   - now: the time of the TCP connection, from which the login's deadline counts.
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
    /// Ids are used again.
    package var isWornOut: Bool { false }
    /// Bytes that wait for the edges of this link.
    package var waitingBytes: Int { self.budget.used }

    package mutating func takeHits() -> LinkHits {
        defer { self.hits = LinkHits() }
        return self.hits
    }

    /// A stream keeps the link waiting earlier than others, as memory is short.
    mutating func waitsForMemory() { self.hits.reducedWindows += 1 }

    // MARK: - The link

    /// There is nothing to say before the login.
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
            // A link of this version has one name; without it there is nothing left to do.
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
            // Nothing can be said: an agent takes Error for a broken protocol, and no gateway ever sent Terminate.
            self.stage = code == .drain ? .leaving : .closed
        }
    }

    package mutating func shut() { self.stage = .closed }

    /// The original's words where there are any, as its users look for them in logs.
    private static func text(of code: ErrorCode, _ text: String) -> String {
        switch code {
        case .loginRefused: "authentication error: invalid token"
        case .nameNotAllowed: "not authorized to use this domain"
        default: text
        }
    }

    /// What an Error of a gateway means; only the refusals that the original knows are final.
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

    /// Those that only wait for their edge to close count at the peer no more, and here only when there are too many.
    package var isFull: Bool {
        self.liveCount >= self.limits.maximumStreams || self.streamCount >= 2 * self.limits.maximumStreams
    }

    package mutating func makeRoom() -> StreamKey? {
        guard self.liveCount >= self.limits.maximumStreams else { return nil }
        // Those that are probably done first, then visitors who have sent nothing, of whom the agent does not know;
        // among equals the one that has been quiet for the longest.
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

    /// Nothing is sent: the agent hears of the stream with its first bytes. So it never hears of a visitor who waits
    /// for the server to speak first, and such protocols do not work with version 1.
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

    /// What the edge had sent is in the outbox already, so that `Close` follows it.
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

    /// Ends a stream on the wire in both directions; what has come is still written on.
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

    /// Its id means nothing to this stream any more.
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
