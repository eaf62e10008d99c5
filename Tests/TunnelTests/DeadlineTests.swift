import Testing
import Tunnel
import Wire

@Suite("Deadlines")
struct DeadlineTests {
    private func tick(_ end: SimulatedEnd, _ now: UInt64) -> (LinkTick, [StreamExpiry]) {
        var expired: [(StreamKey, StreamExpiry)] = []
        let verdict = end.link.tick(now: now, expired: &expired)
        return (verdict, expired.map { $0.1 })
    }

    @Test("the LOGIN must arrive within 15 s, and the agent waits 30 s for the answer")
    func login() {
        let pair = TunnelPair()
        #expect(tick(pair.gateway, 14_999).0 == .none)
        #expect(tick(pair.gateway, 15_000).0 == .close(.handshakeTimeout))
        #expect(pair.gateway.link.phase == .closed)

        let judged = TunnelPair()
        judged.gateway.admits = false
        judged.connect()
        #expect(judged.gateway.link.phase == .authenticating && judged.agent.link.phase == .awaitingWelcome)
        #expect(tick(judged.gateway, 1_000_000).0 == .none, "the authenticator has a deadline of its own")
        #expect(tick(judged.agent, 29_999).0 == .none)
        #expect(tick(judged.agent, 30_000).0 == .close(.handshakeTimeout))
    }

    @Test("a silent peer is pinged after 15 s and dead after 45 s; any byte counts as a sign of life")
    func liveness() {
        let pair = connected()
        let before = pair.gateway.output(atMost: 1 << 20, now: 0)
        #expect(before.isEmpty)
        #expect(tick(pair.gateway, 14_999).0 == .none)
        #expect(pair.gateway.output(atMost: 1 << 20, now: 14_999).isEmpty)
        #expect(tick(pair.gateway, 15_000).0 == .none)
        #expect(pair.gateway.output(atMost: 1 << 20, now: 15_000).count == 16)
        pair.gateway.link.heard(now: 20_000)
        #expect(tick(pair.gateway, 64_999).0 == .none)
        #expect(tick(pair.gateway, 65_000).0 == .close(.dead))
    }

    @Test("after a jump of the clock a peer has 5 s to answer")
    func clockJump() {
        let pair = connected()
        pair.agent.link.clockJumped(now: 100_000)
        #expect(tick(pair.agent, 104_999).0 == .none)
        pair.now = 104_999
        pair.exchange()
        #expect(tick(pair.agent, 105_000).0 == .none)
        pair.agent.link.clockJumped(now: 200_000)
        #expect(tick(pair.agent, 205_000).0 == .close(.dead))
    }

    @Test("a backend has 10 s to connect")
    func accept() throws {
        let pair = connected()
        _ = try #require(pair.open())
        #expect(tick(pair.gateway, 9_999).1.isEmpty)
        #expect(tick(pair.gateway, 10_000).1 == [.reset(.timeout)])
    }

    @Test("a pause is not a fault: without a configured limit no quiet stream ends")
    func pauses() throws {
        let (pair, here, there) = try withStream()
        pair.agent.link.send(there, Array(SimulatedEnd.pattern(here.id, .agent, 0, count: 1)).span.bytes, now: 0)
        pair.exchange()
        pair.gateway.link.finish(here, now: 0)
        pair.exchange()
        for now in stride(from: UInt64(30_000), through: 86_400_000, by: 30_000) {
            pair.gateway.link.heard(now: now)
            let (verdict, expired) = tick(pair.gateway, now)
            #expect(verdict == .none && expired.isEmpty)
        }
    }

    @Test("with a limit of 60 s, a stream whose bytes cannot be written on is reset, and no other")
    func stalled() throws {
        var limits = LinkLimits()
        limits.stalled = 60_000
        let (pair, here, there) = try withStream(limits)
        let other = try #require(pair.open())
        pair.exchange()
        pair.agent.accept(try #require(pair.agent.awaitingAccept.last), now: 0)
        pair.exchange()
        pair.agent.link.send(there, Array(SimulatedEnd.pattern(here.id, .agent, 0, count: 1)).span.bytes, now: 0)
        pair.exchange()
        pair.gateway.link.heard(now: 59_000)
        #expect(tick(pair.gateway, 59_999).1.isEmpty)
        #expect(tick(pair.gateway, 60_000).1 == [.reset(.stalled)])
        #expect(pair.gateway.edges[other]?.wasReset == false)
    }

    @Test("with a limit of 5 minutes, a silent half-closed stream is reset, but not a silent open one")
    func halfClosedIdle() throws {
        var limits = LinkLimits()
        limits.halfClosedIdle = 300_000
        let (pair, here, _) = try withStream(limits)
        pair.gateway.link.heard(now: 1_000_000)
        #expect(tick(pair.gateway, 1_000_000).1.isEmpty)
        pair.gateway.link.finish(here, now: 1_000_000)
        pair.gateway.link.heard(now: 1_299_000)
        #expect(tick(pair.gateway, 1_299_999).1.isEmpty)
        #expect(tick(pair.gateway, 1_300_000).1 == [.reset(.idle)])
    }

    @Test("a socket that takes no bytes for 30 s ends the link")
    func outputStalled() {
        let pair = connected()
        pair.gateway.link.congestion(true, now: 1_000)
        #expect(tick(pair.gateway, 30_999).0 == .none)
        pair.gateway.link.outputProgressed(now: 30_000)
        #expect(tick(pair.gateway, 44_000).0 == .none)
        pair.gateway.link.heard(now: 59_000)
        #expect(tick(pair.gateway, 60_000).0 == .close(.stalled))
    }
}
