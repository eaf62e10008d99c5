import Testing
import Tunnel
import Wire

/// A reset keeps its position in the stream.
@Suite("Resets")
struct ResetTests {
    private let bytes = [UInt8](repeating: 9, count: 100)

    private func tick(_ end: SimulatedEnd, _ now: UInt64) {
        var expired: [(StreamKey, StreamExpiry)] = []
        end.link.heard(now: now)
        _ = end.link.tick(now: now, expired: &expired)
    }

    private func reset(_ id: UInt32, _ code: UInt16) -> [UInt8] {
        frame(id, 11, [UInt8(code >> 8), UInt8(code & 255)])
    }

    @Test("queued bytes are sent before RESET")
    func afterTheQueue() throws {
        let (pair, here, _) = try withStream()
        pair.gateway.link.congestion(true, now: 0)
        pair.gateway.link.send(here, self.bytes.span.bytes, now: 0)
        pair.gateway.link.reset(here, .aborted)
        pair.gateway.link.congestion(false, now: 0)
        #expect(pair.gateway.output(atMost: 1 << 20, now: 0) == frame(here.id, 9, self.bytes) + reset(here.id, 6))
        pair.gateway.link.release(here)
        #expect(pair.gateway.streamCount == 0)
        #expect(pair.gateway.grantedBytes == 0)
    }

    @Test("a queued FIN keeps its position, too")
    func afterFin() throws {
        let (pair, here, _) = try withStream()
        pair.gateway.link.congestion(true, now: 0)
        pair.gateway.link.send(here, self.bytes.span.bytes, now: 0)
        pair.gateway.link.finish(here, now: 0)
        pair.gateway.link.reset(here, .aborted)
        pair.gateway.link.release(here)
        #expect(
            pair.gateway.output(atMost: 1 << 20, now: 0)
                == frame(here.id, 9, self.bytes) + frame(here.id, 9, flags: 1) + reset(here.id, 6))
        #expect(pair.gateway.streamCount == 0)
    }

    @Test("a queued FIN is sent before RESET, even without bytes before it")
    func afterMereFin() throws {
        let (pair, here, _) = try withStream()
        pair.gateway.link.congestion(true, now: 0)
        pair.gateway.link.finish(here, now: 0)
        pair.gateway.link.reset(here, .aborted)
        pair.gateway.link.release(here)
        #expect(pair.gateway.output(atMost: 1 << 20, now: 0) == frame(here.id, 9, flags: 1) + reset(here.id, 6))
        #expect(pair.gateway.streamCount == 0)
    }

    @Test("RESET waits for credit, but at most 10 s without progress")
    func withoutCredit() throws {
        var limits = LinkLimits()
        limits.startWindow = 64
        limits.helloWindow = 64
        let (pair, here, _) = try withStream(limits)
        pair.gateway.link.congestion(true, now: 0)
        pair.gateway.link.send(here, self.bytes.span.bytes, now: 0)
        pair.gateway.link.reset(here, .aborted)
        pair.gateway.link.release(here)
        #expect(pair.gateway.output(atMost: 1 << 20, now: 0) == frame(here.id, 9, Array(self.bytes.prefix(64))))
        tick(pair.gateway, 1_000)
        tick(pair.gateway, 10_999)
        #expect(pair.gateway.output(atMost: 1 << 20, now: 10_999).isEmpty)
        pair.gateway.feed(frame(here.id, 10, number(80)), now: 10_999)
        #expect(pair.gateway.output(atMost: 1 << 20, now: 10_999) == frame(here.id, 9, Array(self.bytes.prefix(16))))
        tick(pair.gateway, 11_000)
        tick(pair.gateway, 20_999)
        #expect(pair.gateway.streamCount == 1)
        tick(pair.gateway, 21_000)
        #expect(pair.gateway.output(atMost: 1 << 20, now: 21_000) == reset(here.id, 6))
        #expect(pair.gateway.streamCount == 0)
        #expect(pair.gateway.grantedBytes == 0)
    }

    @Test("a cut is sent without waiting")
    func cut() throws {
        let (pair, here, _) = try withStream()
        pair.gateway.link.congestion(true, now: 0)
        pair.gateway.link.send(here, self.bytes.span.bytes, now: 0)
        pair.gateway.link.cut(here, .denied)
        #expect(pair.gateway.output(atMost: 1 << 20, now: 0) == reset(here.id, 5))
    }

    @Test("when both sides reset, neither waits for the other")
    func crossing() throws {
        let (pair, here, there) = try withStream()
        for (end, key) in [(pair.gateway, here), (pair.agent, there)] {
            end.link.congestion(true, now: 0)
            end.link.send(key, self.bytes.span.bytes, now: 0)
            end.link.reset(key, .aborted)
            end.link.release(key)
        }
        pair.exchange()
        #expect(pair.gateway.violations.isEmpty && pair.agent.violations.isEmpty)
        #expect(pair.gateway.streamCount == 0 && pair.agent.streamCount == 0)
        #expect(pair.gateway.grantedBytes == 0 && pair.agent.grantedBytes == 0)
    }

    @Test("bytes received before RESET can still be consumed, and count until then")
    func deliveredAfterwards() throws {
        let (pair, here, there) = try withStream()
        let data = Array(SimulatedEnd.pattern(here.id, .gateway, 0, count: 100))
        pair.gateway.link.send(here, data.span.bytes, now: 0)
        pair.gateway.link.reset(here, .aborted)
        pair.gateway.link.release(here)
        pair.exchange()
        #expect(pair.agent.edges[there]?.pending == 100)
        #expect(pair.agent.edges[there]?.wasReset == true)
        #expect(pair.agent.grantedBytes == 100)
        pair.agent.link.consumed(there, 60, now: 0)
        #expect(pair.agent.grantedBytes == 40)
        pair.agent.link.release(there)
        #expect(pair.agent.grantedBytes == 0)
    }

    @Test("a link that ends drops queued bytes and frees their memory")
    func linkEnds() throws {
        let (pair, here, _) = try withStream()
        pair.gateway.link.congestion(true, now: 0)
        pair.gateway.link.send(here, self.bytes.span.bytes, now: 0)
        pair.gateway.link.reset(here, .aborted)
        pair.gateway.link.release(here)
        #expect(pair.gateway.streamCount == 1)
        pair.gateway.link.shut()
        #expect(pair.gateway.streamCount == 0)
        #expect(pair.gateway.grantedBytes == 0)
    }
}

/// Frames that a peer may still send for ended streams are not glitches. More than that are.
@Suite("Late frames")
struct LateFrameTests {
    @Test("a whole window in flight is tolerated, and as much again ends the link")
    func window() throws {
        let (pair, here, _) = try withStream()
        pair.gateway.link.cut(here, .aborted)
        pair.gateway.link.release(here)
        // 256 KiB were granted: as many frames of 1 KiB, and the allowance of each ended stream.
        for _ in 0..<256 { pair.gateway.feed(frame(here.id, 9, [UInt8](repeating: 0, count: 1_024)), now: 0) }
        #expect(pair.gateway.violations.isEmpty)
        for _ in 0..<1_200 { pair.gateway.feed(frame(here.id, 9, [0]), now: 0) }
        #expect(pair.gateway.violations.map(\.code) == [.glitches])
    }

    @Test("unsolicited answers and repeated GOAWAYs are glitches")
    func repeated() throws {
        for kind in [frame(0, 5, [0, 0, 0, 1, 0, 0]), frame(0, 14, [0, 40, 0, 0, 0, 0, 0, 0])] {
            let pair = connected()
            for _ in 0..<900 { pair.agent.feed(kind, now: 0) }
            #expect(pair.agent.violations.isEmpty)
            for _ in 0..<200 { pair.agent.feed(kind, now: 0) }
            #expect(pair.agent.violations.map(\.code) == [.glitches])
        }
    }

    @Test("visitors that come and go are tolerated at 500 a second, but not at any rate")
    func withdrawnOpens() throws {
        let pair = connected()
        func storm(_ count: Int, now: UInt64) {
            for _ in 0..<count {
                guard let key = pair.open() else { return }
                pair.gateway.link.cut(key, .aborted)
                pair.gateway.link.release(key)
                pair.now = now
                pair.exchange()
                for key in pair.agent.edges.keys { pair.agent.link.release(key) }
                pair.agent.edges = [:]
            }
        }
        storm(5_000, now: 0)
        for second in 1...5 { storm(500, now: UInt64(second) * 1_000) }
        #expect(pair.agent.violations.isEmpty)
        storm(2_000, now: 5_000)
        #expect(pair.agent.violations.map(\.code) == [.glitches])
    }
}
