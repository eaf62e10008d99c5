import Bytes
import TestSupport
import Testing
import Tunnel
import Wire

/// The rules of docs/protocol.md, Sessions.
@Suite("Sessions")
struct SessionTests {
    /// Two ends that have begun a session.
    private func session(_ limits: LinkLimits = LinkLimits(), agentLimits: LinkLimits? = nil) -> TunnelPair {
        let pair = TunnelPair(gatewayLimits: limits, agentLimits: agentLimits ?? limits)
        pair.gateway.sessionKey = SessionPair.key
        pair.connect()
        return pair
    }

    private func canResume(_ end: SimulatedEnd) -> Bool { end.link.canResume }
    private func owes(_ end: SimulatedEnd) -> Bool { end.link.owesAcknowledgement }

    /// Resumes the session at the gateway's end.
    private func judge(_ end: SimulatedEnd, epoch: UInt32, handled: UInt64, now: UInt64 = 0) -> ResumeVerdict {
        end.link.judge(Resume(sessionID: SessionPair.key.id, epoch: epoch, handled: handled), now: now)
    }

    /// The numbers in the ACKs among `bytes`.
    private func acks(_ bytes: [UInt8]) -> [UInt64] {
        var found: [UInt64] = []
        var offset = 0
        while let header = FrameHeader(bytes.span.bytes, at: offset) {
            if header.typeByte == FrameType.ack.rawValue {
                found.append(bytes[(offset + 8)..<(offset + 16)].reduce(0) { $0 << 8 | UInt64($1) })
            }
            offset += 8 + header.length
        }
        return found
    }

    @Test("begin only if both sides offer it and the gateway gives a key")
    func agreement() {
        var off = LinkLimits()
        off.resumeWindow = 0
        let both = self.session()
        #expect(self.canResume(both.agent) && self.canResume(both.gateway))
        #expect(both.agent.welcomed?.session == SessionPair.key)
        for pair in [self.session(off, agentLimits: LinkLimits()), self.session(LinkLimits(), agentLimits: off)] {
            #expect(!self.canResume(pair.agent) && !self.canResume(pair.gateway))
            #expect(pair.agent.welcomed?.session == nil)
        }
        let without = TunnelPair()
        without.connect()
        #expect(!self.canResume(without.agent) && !self.canResume(without.gateway))
    }

    @Test("wait for the shorter of both windows")
    func window() {
        var short = LinkLimits()
        short.resumeWindow = 7_000
        for pair in [self.session(short, agentLimits: LinkLimits()), self.session(LinkLimits(), agentLimits: short)] {
            for end in [pair.gateway, pair.agent] {
                end.link.detach(now: 1_000)
                var expired: [(StreamKey, StreamExpiry)] = []
                #expect(end.link.tick(now: 7_999, expired: &expired) == .none)
                #expect(end.link.tick(now: 8_000, expired: &expired) == .expired)
            }
        }
    }

    @Test("lose their carrier by silence and stalled output, and nothing else")
    func carrierEnds() {
        var expired: [(StreamKey, StreamExpiry)] = []
        let silent = self.session()
        #expect(silent.gateway.link.tick(now: 45_000, expired: &expired) == .lost(.dead))
        #expect(self.canResume(silent.gateway) && silent.gateway.output(atMost: 1_000, now: 45_000).isEmpty)
        let stalled = self.session()
        stalled.agent.link.congestion(true, now: 0)
        #expect(stalled.agent.link.tick(now: 30_000, expired: &expired) == .lost(.stalled))
        let plain = TunnelPair()
        plain.connect()
        #expect(plain.gateway.link.tick(now: 45_000, expired: &expired) == .close(.dead))
    }

    @Test("end with every GOAWAY except drain")
    func goodbye() {
        let pair = self.session()
        pair.gateway.link.goAway(.drain, retryAfterSeconds: 0, text: "")
        pair.exchange()
        #expect(self.canResume(pair.gateway) && self.canResume(pair.agent))
        pair.gateway.link.goAway(.revoked, retryAfterSeconds: 0, text: "")
        pair.exchange()
        #expect(!self.canResume(pair.gateway) && !self.canResume(pair.agent))
    }

    @Test("count frames of unknown types, and no PING, PONG or ACK")
    func counting() {
        let pair = self.session()
        pair.gateway.feed(frame(0, 12, number(9)) + frame(0, 0x63, flags: 0x80, [1, 2, 3]), now: 0)
        pair.gateway.link.acknowledge()
        #expect(self.acks(pair.gateway.output(atMost: 1_000, now: 0)) == [11])
        pair.gateway.link.acknowledge()
        #expect(self.acks(pair.gateway.output(atMost: 1_000, now: 0)) == [])
    }

    @Test("acknowledge after a quarter of what the peer keeps, and with a PONG", arguments: [65_536, 131_072, 524_288])
    func due(keeps: Int) throws {
        var limits = LinkLimits()
        limits.firstKept = keeps
        let pair = self.session(LinkLimits(), agentLimits: limits)
        let key = try #require(pair.open())
        pair.exchange()
        let there = try #require(pair.agent.awaitingAccept.first)
        pair.agent.accept(there, now: 0)
        pair.exchange()
        pair.gateway.link.acknowledge()
        pair.exchange()
        #expect(!self.owes(pair.gateway))
        func data(_ count: Int) -> [UInt8] {
            frame(key.id, 9, Array(SimulatedEnd.pattern(key.id, .agent, 0, count: count)))
        }
        let interval = min(131_072, keeps / 4)
        var sent = 0
        while sent + 4_104 < interval {
            pair.gateway.receiveUnchecked(data(4_096), consumes: false, now: 0)
            sent += 4_104
            #expect(self.acks(pair.gateway.output(atMost: 1, now: 0)) == [])
        }
        pair.gateway.receiveUnchecked(data(4_096), consumes: false, now: 0)
        #expect(self.acks(pair.gateway.output(atMost: 1, now: 0)).count == 1)
        pair.gateway.receiveUnchecked(data(10) + frame(0, 12, number(77)), now: 0)
        #expect(self.acks(pair.gateway.output(atMost: 1, now: 0)).count == 1)
    }

    @Test("end after an ACK that goes back, or of what was not sent")
    func wrongAcknowledgements() throws {
        for wrong in [1, 10, UInt64.max] {
            let pair = self.session()
            pair.gateway.feed(frame(0, 17, number(wrong)), now: 0)
            #expect(pair.gateway.violations.first?.code == .protocolViolation)
        }
        let pair = self.session()
        pair.agent.link.register(Register(exposure: 0, port: 0, name: "a"))
        pair.gateway.feed(pair.agent.output(atMost: 1_000, now: 0), now: 0)
        pair.gateway.link.acknowledge()
        pair.agent.feed(pair.gateway.output(atMost: 1_000, now: 0), now: 0)
        #expect(pair.agent.violations.isEmpty)
        pair.agent.feed(frame(0, 17, number(1)), now: 0)
        #expect(pair.agent.violations.first?.code == .protocolViolation)
        let plain = TunnelPair()
        plain.connect()
        plain.gateway.feed(frame(0, 17, number(0)), now: 0)
        #expect(plain.gateway.violations.first?.code == .protocolViolation)
    }

    @Test("accept on a new carrier no ACK of what is still to be sent again")
    func acknowledgementAfterResume() {
        let pair = self.session()
        pair.agent.link.register(Register(exposure: 0, port: 0, name: "a"))
        pair.gateway.feed(pair.agent.output(atMost: 1_000, now: 0), now: 0)
        // REGISTERED is sent and lost.
        let lost = pair.gateway.output(atMost: 1_000, now: 0)
        #expect(lost.count == 29)
        pair.gateway.link.detach(now: 0)
        #expect(self.judge(pair.gateway, epoch: 1, handled: 0) == .resumed)
        pair.gateway.feed(frame(0, 17, number(29)), now: 0)
        #expect(pair.gateway.violations.first?.code == .protocolViolation)
    }

    @Test("refuse old epochs and keep everything")
    func epochs() {
        let pair = self.session()
        #expect(self.judge(pair.gateway, epoch: 3, handled: 0) == .resumed)
        for epoch: UInt32 in [0, 1, 3] { #expect(self.judge(pair.gateway, epoch: epoch, handled: 0) == .replaced) }
        #expect(self.judge(pair.gateway, epoch: 4, handled: 0) == .resumed)
        #expect(self.judge(pair.gateway, epoch: .max, handled: 0) == .resumed)
        #expect(self.canResume(pair.gateway))
    }

    @Test("end if the peer states what was never sent, or less than it has acknowledged")
    func positions() {
        for handled: UInt64 in [1, 1 << 40, .max] {
            let pair = self.session()
            guard case .violation(let violation) = self.judge(pair.gateway, epoch: 1, handled: handled) else {
                Issue.record("\(handled) was accepted")
                continue
            }
            #expect(violation.code == .protocolViolation)
        }
        let pair = self.session()
        pair.agent.link.register(Register(exposure: 0, port: 0, name: "a"))
        pair.exchange()
        pair.agent.link.acknowledge()
        pair.exchange()
        guard case .violation = self.judge(pair.gateway, epoch: 1, handled: 0) else {
            Issue.record("a position below the last ACK was accepted")
            return
        }
    }

    @Test("end if RESUMED answers another attempt")
    func wrongAnswer() {
        let pair = self.session()
        pair.agent.link.detach(now: 0)
        let resume = pair.agent.link.nextResume()
        #expect(throws: PeerViolation.self) {
            try pair.agent.link.resume(Resumed(code: .none, epoch: resume.epoch + 1, handled: 0), now: 0)
        }
    }

    @Test("stop the deadlines of their streams while they have no carrier")
    func deadlines() throws {
        let pair = self.session()
        let waiting = try #require(pair.open())
        pair.exchange()
        for end in [pair.gateway, pair.agent] { end.link.detach(now: 4_000) }
        // One more stream is opened without a carrier. ACCEPT is due within 10 s of both.
        pair.now = 30_000
        let late = try #require(pair.open())
        #expect(self.judge(pair.gateway, epoch: 1, handled: 48 + 8, now: 34_000) == .resumed)
        var expired: [(StreamKey, StreamExpiry)] = []
        #expect(pair.gateway.link.tick(now: 39_999, expired: &expired) == .none)
        #expect(expired.isEmpty)
        #expect(pair.gateway.link.tick(now: 40_000, expired: &expired) == .none)
        #expect(expired.map(\.0) == [waiting])
        #expect(pair.gateway.link.tick(now: 44_000, expired: &expired) == .none)
        #expect(expired.map(\.0) == [waiting, late])
    }

    @Test("keep no more than their bound, and send everything else at it")
    func bound() throws {
        var limits = LinkLimits()
        limits.firstKept = 65_536
        limits.maxKept = 65_536
        limits.startWindow = 1 << 20
        let pair = self.session(limits)
        let key = try #require(pair.open())
        pair.exchange()
        pair.agent.accept(try #require(pair.agent.awaitingAccept.first), now: 0)
        pair.exchange()
        // The agent never acknowledges.
        var sent = 0
        for _ in 0..<100 {
            let count = min(pair.gateway.allowance(key), 10_000)
            if count > 0 {
                pair.gateway.link.send(key, [UInt8](repeating: 0, count: count).span.bytes, now: 0)
            }
            sent += pair.gateway.output(atMost: 1 << 20, now: 0).count
        }
        #expect(sent >= 65_536 && sent < 65_536 + 2 * 16_384)
        #expect(pair.gateway.allowance(key) == 0)
        pair.gateway.feed(frame(0, 12, number(5)), now: 0)
        let pong = pair.gateway.output(atMost: 1 << 20, now: 0)
        #expect(pong.count >= 16 && pong[4] == FrameType.pong.rawValue)
    }

    @Test("count a backend that was connected without a carrier from the break on")
    func acceptedWithoutCarrier() throws {
        var limits = LinkLimits()
        limits.halfClosedIdle = 5_000
        let pair = self.session(limits)
        let key = try #require(pair.open())
        pair.gateway.link.finish(key, now: 0)
        pair.exchange()
        let there = try #require(pair.agent.awaitingAccept.first)
        pair.agent.link.detach(now: 1_000)
        pair.agent.accept(there, now: 31_000)
        let resume = pair.agent.link.nextResume()
        try pair.agent.link.resume(Resumed(code: .none, epoch: resume.epoch, handled: 0), now: 41_000)
        var expired: [(StreamKey, StreamExpiry)] = []
        #expect(pair.agent.link.tick(now: 41_001, expired: &expired) == .none)
        #expect(expired.isEmpty)
        #expect(pair.agent.link.tick(now: 46_000, expired: &expired) == .none)
        #expect(expired.map(\.0) == [there])
    }

    @Test("do not take a burst after a pause for a stalled carrier")
    func burstAfterPause() throws {
        var limits = LinkLimits()
        (limits.firstKept, limits.maxKept, limits.startWindow) = (65_536, 65_536, 1 << 20)
        let pair = self.session(limits)
        let key = try #require(pair.open())
        pair.exchange()
        pair.agent.accept(try #require(pair.agent.awaitingAccept.first), now: 0)
        pair.exchange()
        for end in [pair.gateway, pair.agent] where self.owes(end) { end.link.acknowledge() }
        pair.exchange()
        for now in stride(from: 10_000, through: 40_000, by: 10_000) as StrideThrough<UInt64> {
            pair.gateway.link.heard(now: now)
        }
        pair.gateway.link.send(key, [UInt8](repeating: 0, count: 100_000).span.bytes, now: 40_000)
        _ = pair.gateway.output(atMost: 1 << 20, now: 40_000)
        var expired: [(StreamKey, StreamExpiry)] = []
        #expect(pair.gateway.link.tick(now: 40_100, expired: &expired) == .none)
        pair.gateway.link.heard(now: 70_000)
        #expect(pair.gateway.link.tick(now: 70_000, expired: &expired) == .lost(.stalled))
    }

    @Test("send the tail of streams that have ended before a last GOAWAY, even after a break")
    func tailBeforeGoodbye() throws {
        let pair = self.session()
        let key = try #require(pair.open())
        pair.exchange()
        pair.agent.accept(try #require(pair.agent.awaitingAccept.first), now: 0)
        pair.exchange()
        pair.gateway.link.send(key, [UInt8](repeating: 0, count: 200_000).span.bytes, now: 0)
        _ = pair.gateway.output(atMost: 1 << 20, now: 0)
        pair.gateway.link.detach(now: 0)
        let handled = UInt64(8 + 48)
        #expect(self.judge(pair.gateway, epoch: 1, handled: handled) == .resumed)
        pair.gateway.link.goAway(.none, retryAfterSeconds: 0, text: "")
        let bytes = pair.gateway.output(atMost: .max, now: 0)
        #expect(bytes.count > 200_000)
        #expect(bytes.suffix(16).first == 0 && bytes[bytes.count - 12] == FrameType.goAway.rawValue)
    }

    @Test("are not resumed if the HELLOs do not allow it")
    func notAllowed() {
        var off = LinkLimits()
        off.resumeWindow = 0
        let greeter = SimulatedEnd(.gateway, limits: off)
        let hello = frame(0, 1, Array("DGL2".utf8) + [2, 2, 0, 0] + [UInt8](repeating: 0, count: 8))
        greeter.feed(hello + frame(0, 15, [UInt8](repeating: 0, count: 60)), now: 0)
        #expect(greeter.violations.first?.code == .protocolViolation && greeter.resumes.isEmpty)
    }
}
