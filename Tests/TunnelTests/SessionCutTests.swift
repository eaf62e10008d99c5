import TestSupport
import Testing
import Tunnel
import Wire

/// A fixed session with every kind of counted frame, whose carriers are cut at given bytes.
private struct RecordedSession {
    let pair: SessionPair
    private var hasFailed = false
    /// Bytes that the last carrier delivered.
    private(set) var length = (toAgent: 0, toGateway: 0)

    init() {
        var limits = LinkLimits()
        limits.startWindow = 1_024
        limits.helloWindow = 1_024
        // Stream 1 sends in both directions, 2 is refused, the backend of 3 fails, 4 waits for WINDOW.
        self.pair = SessionPair(limits: limits) { id, role in
            switch (id, role) {
            case (1, .gateway): 300
            case (1, .agent): 400
            case (3, .agent): 200
            case (4, .gateway): 100
            case (4, .agent): 1_500
            default: 0
            }
        }
        self.pair.settle()
    }

    /// Plays the session to its end. After `cut` bytes in one direction of the first carrier, and after `secondCut` of
    /// the next one, both ends lose the carrier.
    ///
    /// - Returns: what went wrong.
    mutating func play(cut: (Role, Int)?, secondCut: (Role, Int)? = nil) -> [String] {
        var cuts = [cut, secondCut].compactMap(\.self)
        let start = self.pair.carriers[0].delivered
        self.pair.agent.link.register(Register(exposure: 0, port: 0, name: "example"))
        for _ in 0..<4 { if let key = self.open() { self.pair.gateway.add(key) } }
        var offsets = start
        for step in 0..<1_000 {
            if step > 0, self.isOver { break }
            for carrier in self.pair.carriers {
                for role in [Role.agent, .gateway] { self.pair.send(carrier, from: role, atMost: 1 << 16) }
                for role in [Role.gateway, .agent] {
                    var delivered: Int {
                        role == .agent
                            ? carrier.delivered.toAgent - offsets.toAgent
                            : carrier.delivered.toGateway - offsets.toGateway
                    }
                    guard let (towards, bytes) = cuts.first, towards == role else {
                        self.pair.deliver(carrier, to: role, .max)
                        continue
                    }
                    self.pair.deliver(carrier, to: role, bytes - delivered)
                    guard delivered >= bytes else { continue }
                    cuts.removeFirst()
                    for role in [Role.agent, .gateway] { self.pair.breaks(carrier, at: role) }
                    offsets = (0, 0)
                }
            }
            if self.pair.current(.agent) == nil, self.pair.candidate == nil { self.pair.dial() }
            self.work(step)
            self.pair.now += 1
        }
        self.pair.settle()
        if let last = self.pair.carriers.first {
            self.length = (
                last.delivered.toAgent - offsets.toAgent, last.delivered.toGateway - offsets.toGateway
            )
        }
        return self.check()
    }

    private var isOver: Bool {
        self.pair.isConnected && self.pair.gateway.edges.isEmpty && self.pair.agent.edges.isEmpty
    }

    private func open() -> StreamKey? {
        self.pair.gateway.link.open(exposure: 0, visitor: .none, local: .none, now: self.pair.now)
    }

    private mutating func work(_ step: Int) {
        let (agent, now) = (self.pair.agent, self.pair.now)
        while let key = agent.awaitingAccept.first {
            agent.awaitingAccept.removeFirst()
            guard let edge = agent.edges[key] else { continue }
            if key.id == 2 { agent.cut(edge, .refused) } else { agent.accept(key, now: now) }
        }
        for end in [self.pair.gateway, agent] {
            for edge in end.edges.values.sorted(by: { $0.key.id < $1.key.id }) {
                if edge.key.id == 3, end.role == .agent {
                    guard !self.hasFailed else { continue }
                    end.pump(edge, atMost: 100, now: now)
                    if edge.sent >= 100 {
                        self.hasFailed = true
                        end.fail(edge)
                    }
                } else {
                    if !edge.isPaused { end.pump(edge, atMost: 700, now: now) }
                    end.consume(edge, atMost: .max, now: now)
                }
            }
            end.reap()
            if end.link.owesAcknowledgement, step % 3 == 0 { end.link.acknowledge() }
        }
    }

    private func check() -> [String] {
        var failures = self.pair.failures
        for end in [self.pair.gateway, self.pair.agent] {
            failures += end.failures + end.violations.map { "\(end.role): \($0)" }
            if end.link.streamCount != 0 { failures.append("\(end.role): \(end.link.streamCount) streams left") }
            for id in [UInt32(1), 4] where !end.finishedInOrder.contains(id) {
                failures.append("\(end.role): stream \(id) did not finish")
            }
            let sender: Role = end.role == .agent ? .gateway : .agent
            for id in [UInt32(1), 4] where end.receivedInAll[id, default: 0] != end.bytesToSend(id, sender) {
                failures.append("\(end.role): \(end.receivedInAll[id, default: 0]) bytes of stream \(id)")
            }
        }
        if self.pair.agent.registered.count != 1 { failures.append("\(self.pair.agent.registered.count) answers") }
        if self.pair.gateway.resetByPeer != [2, 3] { failures.append("resets of \(self.pair.gateway.resetByPeer)") }
        if self.pair.gateway.receivedInAll[3] != 100 { failures.append("not 100 bytes before the reset") }
        return failures
    }
}

@Suite("A session cut at every byte")
struct SessionCutTests {
    /// The bytes of the session without a cut.
    private func length(towards role: Role) -> Int {
        var session = RecordedSession()
        #expect(session.play(cut: nil) == [])
        return role == .agent ? session.length.toAgent : session.length.toGateway
    }

    @Test("continues as if nothing had happened", arguments: [Role.agent, .gateway])
    func once(towards role: Role) {
        let length = self.length(towards: role)
        #expect(length > 500)
        for cut in 0...length {
            var session = RecordedSession()
            let failures = session.play(cut: (role, cut))
            guard failures.isEmpty else {
                Issue.record("cut after \(cut) of \(length) bytes: \(failures.prefix(3))")
                return
            }
        }
    }

    @Test(
        "also when the next carrier breaks at any byte of HELLO, RESUME and what follows",
        arguments: [Role.agent, .gateway])
    func twice(towards role: Role) {
        let length = self.length(towards: .agent)
        for first in [0, 20, length / 3, length / 2, length - 5] {
            for second in 0...400 {
                var session = RecordedSession()
                let failures = session.play(cut: (.agent, first), secondCut: (role, second))
                guard failures.isEmpty else {
                    Issue.record("cuts after \(first) and \(second) bytes: \(failures.prefix(3))")
                    return
                }
            }
        }
    }
}
