import Bytes
import Testing
import Tunnel
import Wire

@Suite("Configured limits, and their counters")
struct OperatorLimitTests {
    @Test("the lower stream limit of both ends applies", arguments: [(2, 9), (9, 2)])
    func streams(_ gateway: Int, _ agent: Int) throws {
        let pair = TunnelPair(
            gatewayLimits: LinkLimits(streams: gateway, stalled: 0, halfClosedIdle: 0),
            agentLimits: LinkLimits(streams: agent, stalled: 0, halfClosedIdle: 0))
        pair.connect()
        let hello = pair.gateway.link.peer
        #expect(hello?.maximumStreams == UInt32(agent))
        for _ in 0..<2 { _ = try #require(pair.open()) }
        #expect(pair.open() == nil)
        let isFull = pair.gateway.link.isFull
        #expect(isFull)
    }

    @Test("65,535 streams can be open, but not one more")
    func maxStreams() throws {
        var limits = LinkLimits(streams: 65_535, stalled: 0, halfClosedIdle: 0)
        limits.pendingOpens = 140_000
        limits.owedControl = 1 << 30
        let pair = connected(limits)
        for _ in 0..<65_535 { _ = try #require(pair.open()) }
        #expect(pair.open() == nil)
        pair.exchange()
        #expect(pair.agent.violations.isEmpty && pair.agent.streamCount == 65_535)
    }

    @Test(
        "all names of a link can be registered twice at once, and one more REGISTER ends the link",
        arguments: [(1, 32), (16, 32), (20, 40)])
    func names(_ names: Int, _ burst: Int) {
        let pair = connected(LinkLimits(streams: 1, names: names, stalled: 0, halfClosedIdle: 0))
        for number in 0..<burst {
            var queue = ByteQueue()
            Register(exposure: UInt16(number), port: 0, name: "a").encode(into: &queue)
            pair.gateway.feed(queue.withReadable { Array($0) }, now: 0)
        }
        #expect(pair.gateway.violations.isEmpty)
        var queue = ByteQueue()
        Register(exposure: 999, port: 0, name: "a").encode(into: &queue)
        pair.gateway.feed(queue.withReadable { Array($0) }, now: 0)
        #expect(pair.gateway.violations.map(\.code) == [.glitches])
    }

    @Test("256 streams may wait for ACCEPT; a name may use as many as it leaves free, and at least 4")
    func pendingOpens() throws {
        let pair = connected()
        func open(_ exposure: UInt16) -> Bool {
            pair.gateway.canOpen(exposure)
                && pair.gateway.link.open(exposure: exposure, visitor: .none, local: .none, now: 0) != nil
        }
        for _ in 0..<128 { #expect(open(1)) }
        #expect(!open(1))
        for _ in 0..<64 { #expect(open(2)) }
        #expect(!open(2))
        // Later names get fewer and fewer, but always some.
        for exposure in 3..<20 as Range<UInt16> { while open(exposure) {} }
        for _ in 0..<4 { #expect(open(20)) }
        #expect(!open(20))
    }

    @Test("late frames are counted if more arrive than were in flight, and so are glitches")
    func lateFrames() throws {
        var limits = LinkLimits()
        limits.lateFrames = 1
        limits.lateFrameBytes = 1 << 30
        let (pair, here, _) = try withStream(limits)
        pair.gateway.link.cut(here, .aborted)
        pair.gateway.link.release(here)
        // One is allowed for the reset, one for the slot.
        for _ in 0..<2 { pair.gateway.feed(frame(1, 9, [1]), now: 0) }
        #expect(pair.gateway.hits == LinkHits())
        for _ in 0..<3 { pair.gateway.feed(frame(1, 9, [1]), now: 0) }
        var expected = LinkHits()
        (expected.lateFrames, expected.glitches) = (3, 3)
        #expect(pair.gateway.hits == expected)
        #expect(pair.gateway.hits == LinkHits())
    }

    @Test("a reset that was given up after 10 s is counted")
    func resetWait() throws {
        let (pair, here, _) = try withStream()
        pair.gateway.link.congestion(true, now: 0)
        pair.gateway.link.send(here, [1].span.bytes, now: 0)
        pair.gateway.link.reset(here, .aborted)
        var expired: [(StreamKey, StreamExpiry)] = []
        for now in [0, 9_999] as [UInt64] { _ = pair.gateway.link.tick(now: now, expired: &expired) }
        #expect(pair.gateway.hits.resetsGivenUp == 0)
        _ = pair.gateway.link.tick(now: 10_000, expired: &expired)
        #expect(pair.gateway.hits.resetsGivenUp == 1)
    }

    @Test("a stream that starts with a smaller window because memory is short is counted")
    func reducedWindows() throws {
        var limits = LinkLimits()
        limits.linkBudget = 4 * limits.startWindow
        let pair = connected(limits)
        for _ in 0..<3 { _ = pair.open() }
        #expect(pair.gateway.hits.reducedWindows == 0)
        _ = pair.open()
        #expect(pair.gateway.hits.reducedWindows == 1)
    }
}

extension SimulatedEnd {
    /// The limits that the link has hit since the last call.
    fileprivate var hits: LinkHits { self.link.takeHits() }
}
