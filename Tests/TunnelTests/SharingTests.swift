import Testing
import Tunnel
import Wire

/// How the streams and names of one link share its resources.
@Suite("Sharing")
struct SharingTests {
    private func open(_ pair: TunnelPair, _ exposure: UInt16) -> StreamKey? {
        pair.gateway.link.open(exposure: exposure, visitor: .none, local: .none, now: pair.now)
    }

    private func fill(_ pair: TunnelPair, _ exposure: UInt16) -> Int {
        var count = 0
        while open(pair, exposure) != nil { count += 1 }
        return count
    }

    @Test("a name whose backend hangs leaves pending opens for every other name")
    func pendingOpens() {
        let pair = connected()
        #expect((0..<12).map { fill(pair, $0) } == [128, 64, 32, 16, 8, 4, 4, 4, 4, 4, 4, 4])
        #expect(!pair.gateway.canOpen(0))
        #expect(pair.gateway.canOpen(99))
    }

    @Test("the limit on pending opens, a link that is not up and owed frames are different obstacles")
    func obstacles() {
        let new = TunnelPair(gatewayLimits: LinkLimits(), agentLimits: LinkLimits())
        #expect(new.gateway.obstacle(0) == .notUp)

        let pair = connected()
        #expect(pair.gateway.obstacle(0) == nil)
        _ = fill(pair, 0)
        #expect(pair.gateway.obstacle(0) == .pendingOpens)
        // 64 answers of 526 bytes. The agent reads none of them.
        for _ in 0..<64 {
            pair.gateway.link.answerRegister(
                Registered(exposure: 0, code: .nameTaken, port: 0, text: String(repeating: "x", count: 512)))
        }
        #expect(pair.gateway.obstacle(0) == .owedControl && pair.gateway.obstacle(99) == .owedControl)
        pair.gateway.link.goAway(.drain, retryAfterSeconds: 0, text: "")
        #expect(pair.gateway.obstacle(0) == .notUp && pair.gateway.obstacle(99) == .notUp)
    }

    @Test("pending opens are freed when the agent accepts, declines or never answers, and when visitors leave")
    func pendingOpensReturn() throws {
        let pair = connected()
        for end in 0..<4 {
            let keys = (0..<128).compactMap { _ in open(pair, 0) }
            try #require(keys.count == 128)
            #expect(!pair.gateway.canOpen(0))
            for key in keys { pair.gateway.add(key) }
            switch end {
            case 0:
                pair.exchange()
                for key in pair.agent.awaitingAccept { pair.agent.accept(key, now: pair.now) }
                pair.agent.awaitingAccept = []
                pair.exchange()
            case 1:
                pair.exchange()
                for key in pair.agent.awaitingAccept { pair.agent.link.cut(key, .refused) }
                pair.agent.awaitingAccept = []
                pair.exchange()
            case 2:
                var expired: [(StreamKey, StreamExpiry)] = []
                pair.now += 10_000
                pair.gateway.link.heard(now: pair.now)
                _ = pair.gateway.link.tick(now: pair.now, expired: &expired)
                #expect(expired.count == 128)
            default: for key in keys { pair.gateway.link.reset(key, .aborted) }
            }
            #expect(pair.gateway.canOpen(0))
            for key in keys { pair.gateway.link.release(key) }
            pair.exchange()
            for key in pair.agent.edges.keys { pair.agent.link.release(key) }
            pair.agent.edges = [:]
            pair.agent.awaitingAccept = []
        }
    }

    @Test("bytes held by stalled streams do not shrink the windows of the others")
    func parked() throws {
        var limits = LinkLimits()
        limits.linkBudget = 1 << 20
        let pair = connected(limits)
        var keys: [StreamKey] = []
        for _ in 0..<20 {
            let key = try #require(pair.open())
            keys.append(key)
            pair.exchange()
            let there = try #require(pair.agent.awaitingAccept.last)
            pair.agent.awaitingAccept = []
            pair.agent.accept(there, now: 0)
            pair.exchange()
            pair.agent.link.send(there, Array(SimulatedEnd.pattern(key.id, .agent, 0, count: 1)).span.bytes, now: 0)
            pair.exchange()
        }
        #expect(pair.gateway.grantedBytes > 1 << 20)
        var expired: [(StreamKey, StreamExpiry)] = []
        pair.gateway.link.heard(now: 1_000)
        _ = pair.gateway.link.tick(now: 1_000, expired: &expired)
        #expect(pair.gateway.grantedBytes == 0)
        let before = pair.gateway.grantedBytes
        _ = try #require(pair.open())
        #expect(pair.gateway.grantedBytes - before == limits.startWindow)
        // A reader that continues gets its share back, and the end of a stream leaves nothing behind.
        pair.gateway.link.consumed(keys[0], 1, now: 1_001)
        #expect(pair.gateway.grantedBytes > limits.startWindow)
        for key in keys { pair.gateway.link.cut(key, .aborted) }
        for key in keys { pair.gateway.link.release(key) }
        #expect(pair.gateway.grantedBytes == limits.startWindow)
    }

    @Test("a stalled stream counts no more than before when a frame that is due grants it more")
    func parkedAndToppedUp() throws {
        let (pair, here, there) = try withStream()
        let chunk = 48 * 1_024
        for part in 0..<3 {
            let bytes = Array(SimulatedEnd.pattern(here.id, .agent, part * chunk, count: chunk))
            pair.agent.link.send(there, bytes.span.bytes, now: 0)
            pair.exchange()
        }
        // A frame is due, and a little more is free when it is sent.
        pair.gateway.link.consumed(here, 2 * chunk, now: 0)
        pair.gateway.link.consumed(here, 1_000, now: 0)
        #expect(pair.gateway.grantedBytes > 0)
        var expired: [(StreamKey, StreamExpiry)] = []
        pair.gateway.link.heard(now: 1_000)
        _ = pair.gateway.link.tick(now: 1_000, expired: &expired)
        #expect(pair.gateway.grantedBytes == 0)
        pair.exchange()
        #expect(pair.gateway.grantedBytes == 0)
        pair.gateway.link.consumed(here, 1, now: 1_001)
        #expect(pair.gateway.grantedBytes > 3 * chunk)
        pair.gateway.link.cut(here, .aborted)
        pair.gateway.link.release(here)
        #expect(pair.gateway.grantedBytes == 0)
    }

    @Test("the longest-stalled streams are reported, without those that make progress")
    func stalled() throws {
        let (pair, here, there) = try withStream()
        #expect(pair.gateway.stalled(before: 1_000_000).isEmpty)
        pair.now = 5_000
        pair.agent.link.send(there, Array(SimulatedEnd.pattern(here.id, .agent, 0, count: 1)).span.bytes, now: pair.now)
        pair.exchange()
        #expect(pair.gateway.stalled(before: 4_999).isEmpty)
        #expect(pair.gateway.stalled(before: 5_000) == [here])
        pair.gateway.link.consumed(here, 1, now: 6_000)
        #expect(pair.gateway.stalled(before: 1_000_000).isEmpty)
    }

    @Test("when memory is short, a stream's queue holds fewer bytes")
    func queues() throws {
        var limits = LinkLimits()
        limits.linkBudget = 64 * 1_024
        limits.startWindow = 1_024
        let (pair, here, _) = try withStream(limits)
        pair.gateway.link.congestion(true, now: 0)
        let bytes = [UInt8](repeating: 1, count: 64 * 1_024)
        #expect(pair.gateway.allowance(here) == 64 * 1_024)
        pair.gateway.link.send(here, bytes.span.bytes.extracting(0..<40_000), now: 0)
        #expect(pair.gateway.allowance(here) == 0, "16 KiB at half of the budget, and more waits already")
        _ = pair.gateway.output(atMost: 1 << 20, now: 0)
        pair.gateway.link.congestion(true, now: 0)
        #expect(pair.gateway.grantedBytes <= 2_048, "an empty queue keeps no memory then")
    }
}
