import Bytes
import Foundation
import TestSupport
import Tunnel
import Wire

/// One end of a simulated link with its edges. It replaces the driver, without sockets.
final class SimulatedEnd {
    /// One end of a stream: it sends known bytes and checks the bytes that it receives.
    final class Edge {
        let key: StreamKey
        let toSend: Int
        var sent = 0
        var finished = false
        var received = 0
        /// Bytes received and not yet consumed.
        var pending = 0
        var sawEnd = false
        /// RESET has arrived. The bytes before it are still consumed.
        var wasReset = false
        /// The socket at this end has failed. It is neither read nor written any more.
        var hasFailed = false
        var isPaused = false
        /// At the agent: whether the backend is connected.
        var isConnected = false

        init(key: StreamKey, toSend: Int) {
            self.key = key
            self.toSend = toSend
        }

        var isDone: Bool {
            self.hasFailed || (self.wasReset && (self.pending == 0 || !self.isConnected))
                || (self.finished && self.sawEnd && self.pending == 0)
        }
    }

    let role: Role
    var link: Link
    var edges: [StreamKey: Edge] = [:]
    /// Received bytes by stream ID, kept after the edge is gone.
    var receivedInAll: [UInt32: Int] = [:]
    var finishedInOrder: Set<UInt32> = []
    /// Streams that had an edge here. An agent may decline a stream before that.
    var added: Set<UInt32> = []
    /// By stream ID: the bytes that the edge had sent when it failed.
    var sentBeforeFailure: [UInt32: Int] = [:]
    /// Streams that this end has cut, and streams that the peer has reset.
    var cut: Set<UInt32> = []
    var resetByPeer: Set<UInt32> = []
    var failures: [String] = []
    var goodbyes: [GoAway] = []
    var violations: [PeerViolation] = []
    var welcomed: Welcome?
    var registered: [Registered] = []
    var awaitingAccept: [StreamKey] = []
    /// At the gateway: whether a login is accepted at once. Otherwise it stays unanswered.
    var admits = true
    private(set) var resumes: [Resume] = []
    private(set) var resumedFrames: [Resumed] = []
    /// What followed RESUMED.
    private(set) var rest: [UInt8] = []
    /// At the gateway: announced in WELCOME.
    var sessionKey: SessionKey?
    private var partial: [UInt8] = []
    let bytesToSend: (UInt32, Role) -> Int

    init(_ role: Role, limits: LinkLimits, bytesToSend: @escaping (UInt32, Role) -> Int = { _, _ in 0 }) {
        self.role = role
        self.link = Link(role: role, limits: limits, budget: nil, now: 0)
        self.bytesToSend = bytesToSend
    }

    /// Random bytes, repeated. The period is a prime number.
    private static let table: [UInt8] = {
        var generator = SeededGenerator(seed: 1)
        let random = (0..<period).map { _ in UInt8.random(in: 0...255, using: &generator) }
        return Array((0...(largestPiece / period + 1)).map { _ in random }.joined())
    }()
    private static let period = 65_521
    private static let largestPiece = 1 << 20

    /// The bytes at an offset of one direction of a stream. Both ends compute the same bytes.
    static func pattern(_ id: UInt32, _ sender: Role, _ offset: Int, count: Int) -> ArraySlice<UInt8> {
        precondition(count <= Self.largestPiece, "too many bytes at once")
        let start = (Int(id) * 7_919 + (sender == .agent ? 30_011 : 0) + offset) % Self.period
        return Self.table[start..<(start + count)]
    }

    func add(_ key: StreamKey) {
        self.added.insert(key.id)
        let edge = Edge(key: key, toSend: self.bytesToSend(key.id, self.role))
        edge.isConnected = self.role == .gateway
        self.edges[key] = edge
    }

    /// Processes bytes from the wire as a driver does.
    func feed(_ bytes: [UInt8], now: UInt64) {
        let batch = self.partial + bytes
        var offset = 0
        loop: while true {
            let event = self.link.nextEvent(batch.span.bytes, at: &offset, now: now)
            switch event {
            case .needMore: break loop
            case .greeted: break
            case .resume(let resume): self.resumes.append(resume)
            case .resumed(let resumed):
                self.resumedFrames.append(resumed)
                self.rest = Array(batch[offset...])
                return
            case .login:
                guard self.admits else { continue }
                self.link.acceptLogin(
                    Welcome(linkID: 1, maximumNames: 4, session: self.sessionKey), now: now)
            case .welcomed(let welcome): self.welcomed = welcome
            case .register(let register):
                self.link.answerRegister(
                    Registered(exposure: register.exposure, code: .none, port: 33_605, text: "127.0.0.1:33605"))
            case .registered(let answer): self.registered.append(answer)
            case .unregister: break
            case .opened(let key, _):
                self.add(key)
                self.awaitingAccept.append(key)
            case .ready, .accepted: break
            case .data(let key, let range, let fin): self.took(key, batch[range], fin)
            case .reset(let key, _):
                self.edges[key]?.wasReset = true
                self.resetByPeer.insert(key.id)
            case .goAway(let goAway): self.goodbyes.append(goAway)
            case .violation(let violation): self.violations.append(violation)
            }
        }
        self.partial = Array(batch[offset...])
    }

    /// The session continues on another connection, which begins with a whole frame.
    func newCarrier() { self.partial = [] }

    /// Processes bytes from the wire without checking data.
    ///
    /// - Parameter consumes: whether data is consumed at once. Otherwise it stays pending.
    func receiveUnchecked(_ bytes: [UInt8], consumes: Bool = true, now: UInt64) {
        let batch = self.partial + bytes
        var offset = 0
        loop: while true {
            switch self.link.nextEvent(batch.span.bytes, at: &offset, now: now) {
            case .needMore: break loop
            case .data(let key, let range, _): if consumes { self.link.consumed(key, range.count, now: now) }
            default: continue
            }
        }
        self.partial = Array(batch[offset...])
    }

    // `#expect` cannot capture a noncopyable machine.
    var streamCount: Int { self.link.streamCount }
    var grantedBytes: Int { self.link.grantedBytes }
    var roundTrip: UInt64 { self.link.roundTrip }
    func obstacle(_ exposure: UInt16) -> OpenObstacle? { self.link.obstacle(toOpening: exposure) }
    func canOpen(_ exposure: UInt16) -> Bool { self.obstacle(exposure) == nil }
    func allowance(_ key: StreamKey) -> Int { self.link.sendAllowance(key) }

    func stalled(before: UInt64) -> [StreamKey] {
        var found: [(StreamKey, since: UInt64)] = []
        self.link.stalledStreams(before: before, into: &found)
        return found.map(\.0)
    }

    private func took(_ key: StreamKey, _ bytes: ArraySlice<UInt8>, _ fin: Bool) {
        guard let edge = self.edges[key] else { return self.failures.append("data for no edge, \(key)") }
        if edge.wasReset { self.failures.append("stream \(key.id): data after RESET") }
        let sender: Role = self.role == .gateway ? .agent : .gateway
        let expected = Self.pattern(key.id, sender, edge.received, count: bytes.count)
        let isRight = expected.withUnsafeBytes { left in
            bytes.withUnsafeBytes { right in
                guard let left = left.baseAddress, let right = right.baseAddress else { return true }
                return memcmp(left, right, bytes.count) == 0
            }
        }
        guard isRight else {
            return self.failures.append("stream \(key.id): wrong bytes from \(edge.received) on")
        }
        edge.received += bytes.count
        edge.pending += bytes.count
        self.receivedInAll[key.id, default: 0] += bytes.count
        if fin { edge.sawEnd = true }
    }

    /// Lets an edge send at most `atMost` bytes from its source.
    func pump(_ edge: Edge, atMost: Int, now: UInt64) {
        guard !edge.wasReset, !edge.hasFailed, !edge.finished, edge.isConnected else { return }
        let allowance = self.link.sendAllowance(edge.key)
        guard allowance > 0 else {
            edge.isPaused = true
            return
        }
        let count = min(allowance, atMost, edge.toSend - edge.sent)
        if count > 0 {
            let bytes = Array(Self.pattern(edge.key.id, self.role, edge.sent, count: count))
            self.link.send(edge.key, bytes.span.bytes, now: now)
            edge.sent += count
        }
        if edge.sent == edge.toSend {
            edge.finished = true
            self.link.finish(edge.key, now: now)
        }
    }

    /// Consumes at most `atMost` of the bytes that an edge has received.
    func consume(_ edge: Edge, atMost: Int, now: UInt64) {
        let count = min(edge.pending, atMost)
        guard count > 0, !edge.hasFailed, edge.isConnected else { return }
        edge.pending -= count
        self.link.consumed(edge.key, count, now: now)
    }

    /// Makes the socket of an edge fail after the bytes that it has sent.
    func fail(_ edge: Edge) {
        guard !edge.wasReset, !edge.hasFailed else { return }
        edge.hasFailed = true
        self.sentBeforeFailure[edge.key.id] = edge.sent
        self.link.reset(edge.key, .aborted)
    }

    /// Resets a stream without waiting for the bytes that its edge has sent.
    func cut(_ edge: Edge, _ code: ErrorCode) {
        edge.hasFailed = true
        self.cut.insert(edge.key.id)
        self.link.cut(edge.key, code)
    }

    /// Connects the backend of a stream.
    func accept(_ key: StreamKey, now: UInt64) {
        self.edges[key]?.isConnected = true
        self.link.accept(key, now: now)
    }

    /// Closes the edges that are done.
    func reap() {
        for edge in self.edges.values.sorted(by: { $0.key.id < $1.key.id }) where edge.isDone {
            if !edge.wasReset, !edge.hasFailed { self.finishedInOrder.insert(edge.key.id) }
            self.link.release(edge.key)
            self.edges[edge.key] = nil
        }
    }

    /// Takes about `atMost` bytes out of the outbox, in whole frames.
    func output(atMost: Int, now: UInt64) -> [UInt8] {
        self.link.fill(atMost, now: now)
        var result: [UInt8] = []
        self.link.drainOutbox(atMost: atMost) { result += $0 }
        while let key = self.link.nextResumable() { self.edges[key]?.isPaused = false }
        return result
    }
}

/// A gateway's end, an agent's end and the two wires between them.
final class TunnelPair {
    let gateway: SimulatedEnd
    let agent: SimulatedEnd
    var toAgent: [UInt8] = []
    var toGateway: [UInt8] = []
    var now: UInt64 = 0
    /// Milliseconds that bytes take to arrive.
    var delay: UInt64 = 0

    init(
        gatewayLimits: LinkLimits = LinkLimits(), agentLimits: LinkLimits = LinkLimits(),
        bytesToSend: @escaping (UInt32, Role) -> Int = { _, _ in 0 }
    ) {
        self.gateway = SimulatedEnd(.gateway, limits: gatewayLimits, bytesToSend: bytesToSend)
        self.agent = SimulatedEnd(.agent, limits: agentLimits, bytesToSend: bytesToSend)
    }

    /// Exchanges HELLO, LOGIN and WELCOME.
    func connect() {
        self.agent.link.start(software: "test agent")
        self.agent.link.login(Login(method: .instance, instanceKey: Array(repeating: 1, count: 32), run: 1, token: ""))
        self.gateway.link.start(software: "test gateway")
        self.exchange()
    }

    /// Carries bytes in both directions until both outboxes are empty.
    func exchange() {
        for _ in 0..<1_000 {
            let right = self.agent.output(atMost: 1 << 20, now: self.now)
            let left = self.gateway.output(atMost: 1 << 20, now: self.now)
            if right.isEmpty, left.isEmpty { return }
            self.now += self.delay
            self.gateway.feed(right, now: self.now)
            self.agent.feed(left, now: self.now)
        }
    }

    func open() -> StreamKey? {
        guard
            let key = self.gateway.link.open(
                exposure: 0, visitor: .none, local: .none, now: self.now)
        else { return nil }
        self.gateway.add(key)
        return key
    }
}
