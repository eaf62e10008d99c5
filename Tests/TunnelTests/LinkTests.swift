import Bytes
import Testing
import Tunnel
import Wire

@Suite("Link")
struct LinkTests {
    @Test("comes up with HELLO, LOGIN and WELCOME, and measures a round trip")
    func login() {
        let pair = connected()
        #expect(pair.gateway.link.phase == .up)
        #expect(pair.agent.link.phase == .up)
        #expect(pair.agent.welcomed == Welcome(linkID: 1, maximumNames: 4))
        #expect(pair.agent.link.roundTrip == 0)
        #expect(pair.gateway.link.peer?.software == "test agent")
    }

    @Test("the PINGs that measure the round trip are not glitches, but the next one in the same second is")
    func firstPings() {
        let pair = connected()
        #expect(pair.gateway.link.statistics.pingsReceived == 4)
        #expect(pair.gateway.link.statistics.glitches == 0)
        #expect(pair.agent.link.statistics.glitches == 0)
        pair.gateway.feed(frame(0, 12, number(5)), now: 0)
        #expect(pair.gateway.link.statistics.glitches == 1)
    }

    @Test("carries a registration and its answer")
    func register() {
        let pair = connected()
        pair.agent.link.register(Register(exposure: 2, port: 0, name: "example"))
        pair.exchange()
        #expect(pair.agent.registered == [Registered(exposure: 2, code: .none, port: 33_605, text: "127.0.0.1:33605")])
    }

    @Test("ends one direction with FIN and keeps the other open")
    func halfClose() throws {
        let (pair, here, there) = try withStream()
        pair.gateway.link.finish(here, now: 0)
        pair.exchange()
        #expect(pair.agent.edges[there]?.sawEnd == true)
        let answer = Array(SimulatedEnd.pattern(here.id, .agent, 0, count: 100))
        pair.agent.link.send(there, answer.span.bytes, now: 0)
        pair.agent.link.finish(there, now: 0)
        pair.exchange()
        #expect(pair.gateway.edges[here]?.received == 100)
        #expect(pair.gateway.edges[here]?.sawEnd == true)
        #expect(pair.gateway.failures.isEmpty)
    }

    @Test("accepts data after OPEN and before ACCEPT, up to the window in HELLO")
    func zeroRoundTrip() throws {
        let pair = connected()
        let key = try #require(pair.open())
        #expect(pair.gateway.link.sendAllowance(key) == LinkLimits().helloWindow)
        pair.gateway.link.send(key, [UInt8](repeating: 0, count: LinkLimits().helloWindow).span.bytes, now: 0)
        #expect(pair.gateway.link.sendAllowance(key) == 0)
        pair.exchange()
        #expect(pair.agent.link.streamCount == 1)
    }

    @Test("a visitor that ended before ACCEPT does not make the agent lower its limit")
    func finBeforeAccept() throws {
        let pair = connected()
        let key = try #require(pair.open())
        pair.gateway.link.finish(key, now: 0)
        pair.exchange()
        pair.agent.accept(try #require(pair.agent.awaitingAccept.first), now: 0)
        pair.exchange()
        #expect(pair.gateway.violations.isEmpty)
    }

    @Test("an edge without allowance is resumed once there is room")
    func resumption() throws {
        let (pair, here, there) = try withStream()
        let window = pair.gateway.link.sendAllowance(here)
        let bytes = Array(SimulatedEnd.pattern(here.id, .gateway, 0, count: window))
        pair.gateway.link.send(here, bytes.span.bytes, now: 0)
        #expect(pair.gateway.link.sendAllowance(here) == 0)
        pair.exchange()
        pair.agent.consume(try #require(pair.agent.edges[there]), atMost: window, now: 0)
        pair.now += 10
        pair.gateway.feed(pair.agent.output(atMost: 1 << 20, now: pair.now), now: pair.now)
        #expect(pair.gateway.link.nextResumable() == here)
        #expect(pair.gateway.link.sendAllowance(here) > 0)
    }

    @Test("a reset reaches the peer, and frees the slot only on release")
    func reset() throws {
        let (pair, here, there) = try withStream()
        pair.agent.link.reset(there, .refused)
        pair.exchange()
        #expect(pair.gateway.edges[here]?.wasReset == true)
        #expect(pair.gateway.link.streamCount == 1)
        pair.gateway.link.release(here)
        pair.agent.link.release(there)
        #expect(pair.gateway.link.streamCount == 0)
        #expect(pair.agent.link.streamCount == 0)
        #expect(pair.gateway.link.grantedBytes == 0)
        #expect(pair.agent.link.grantedBytes == 0)
    }

    @Test("frames for a closed stream are ignored and counted")
    func lateFrames() throws {
        let (pair, here, _) = try withStream()
        pair.gateway.link.reset(here, .aborted)
        pair.gateway.link.release(here)
        pair.gateway.feed(frame(here.id, 9, [1, 2, 3]), now: 0)
        #expect(pair.gateway.violations.isEmpty)
        #expect(pair.gateway.link.statistics.lateFrames == 1)
    }

    @Test("serves streams in turn when the link is congested, and a newly active one first")
    func fairness() throws {
        let pair = connected()
        var keys: [StreamKey] = []
        for _ in 0..<3 { keys.append(try #require(pair.open())) }
        pair.exchange()
        for key in pair.agent.awaitingAccept { pair.agent.accept(key, now: 0) }
        pair.exchange()
        pair.gateway.link.congestion(true, now: 0)
        for key in keys.prefix(2) {
            pair.gateway.link.send(key, [UInt8](repeating: 0, count: 60_000).span.bytes, now: 0)
        }
        var order: [UInt32] = []
        func takeOne() {
            // Requesting one byte serves one frame.
            let frame = pair.gateway.output(atMost: 1, now: 0)
            if let header = FrameHeader(frame.span.bytes, at: 0) {
                #expect(frame.count == 8 + header.length)
                order.append(header.id)
            }
        }
        for _ in 0..<4 { takeOne() }
        pair.gateway.link.send(keys[2], [UInt8](repeating: 0, count: 10).span.bytes, now: 0)
        for _ in 0..<3 { takeOne() }
        #expect(order == [1, 2, 1, 2, 3, 1, 2])
    }

    @Test("grants less as the budget is used up, but always something")
    func budget() throws {
        var limits = LinkLimits()
        limits.linkBudget = 1 << 20
        let pair = connected(limits)
        var granted: [Int] = []
        for _ in 0..<40 {
            let before = pair.gateway.link.grantedBytes
            _ = try #require(pair.open())
            granted.append(pair.gateway.link.grantedBytes - before)
        }
        #expect(granted.first == limits.startWindow)
        #expect(granted.last == limits.floorWindow)
        #expect(granted.contains(limits.pressureWindow))
        #expect(pair.gateway.link.grantedBytes <= limits.linkBudget + 40 * limits.floorWindow)
    }

    @Test("grows the window of a fast stream on a long round trip, up to the maximum")
    func windowGrowth() throws {
        let (pair, _, there) = try withStream(delay: 50)
        #expect(pair.agent.link.roundTrip == 100)
        var limit = LinkLimits().startWindow
        var sent = 0
        for step in 0..<140 {
            let now = pair.now + UInt64(step)
            let size = min(16_376, limit - sent)
            pair.agent.feed(
                frame(there.id, 9, Array(SimulatedEnd.pattern(there.id, .gateway, sent, count: size))), now: now)
            sent += size
            pair.agent.link.consumed(there, size, now: now)
            let output = pair.agent.output(atMost: 1 << 20, now: now)
            if !output.isEmpty {
                limit = output.suffix(8).reduce(0) { $0 << 8 | Int($1) }
            }
        }
        #expect(pair.agent.failures.isEmpty)
        #expect(limit - sent > 2 << 20)
        #expect(limit - sent <= LinkLimits().maxWindow)
    }

    @Test("a stream whose edge is gone keeps its slot only until its end is sent")
    func orphan() throws {
        let (pair, _) = try withOrphan()
        #expect(pair.gateway.link.streamCount == 1)
        _ = pair.gateway.output(atMost: 1 << 20, now: 0)
        #expect(pair.gateway.link.streamCount == 0)
        #expect(pair.gateway.link.statistics.resetsSent == 0)
    }

    @Test("a reset by either end frees the slot of a stream whose edge is gone")
    func orphanReset() throws {
        for resetsItself in [false, true] {
            let (pair, here) = try withOrphan()
            #expect(pair.gateway.link.streamCount == 1)
            if resetsItself {
                pair.gateway.link.cut(here, .idle)
            } else {
                pair.gateway.feed(frame(here.id, 11, [0, 6]), now: 0)
            }
            #expect(pair.gateway.link.streamCount == 0)
            #expect(pair.gateway.link.grantedBytes == 0)
        }
    }

    @Test("a stream opened before the gateway read our GOAWAY is declined, and the others continue")
    func openCrossesGoodbye() throws {
        let (pair, here, there) = try withStream()
        let late = try #require(pair.open())
        let crossing = pair.gateway.output(atMost: 1 << 20, now: 0)
        pair.agent.link.goAway(.drain, retryAfterSeconds: 0, text: "")
        pair.agent.feed(crossing, now: 0)
        pair.exchange()
        #expect(pair.agent.violations.isEmpty && pair.gateway.violations.isEmpty)
        #expect(pair.gateway.edges[late]?.wasReset == true)
        #expect(pair.gateway.edges[here]?.wasReset == false)
        pair.agent.link.send(there, Array(SimulatedEnd.pattern(here.id, .agent, 0, count: 1)).span.bytes, now: 0)
        pair.exchange()
        #expect(pair.gateway.edges[here]?.received == 1)
        #expect(pair.open() == nil)
    }

    @Test("a link that has used up its stream IDs reports that, and never reuses one")
    func wornOut() throws {
        var limits = LinkLimits()
        limits.lastStream = 2
        let pair = connected(limits)
        #expect(try #require(pair.open()).id == 1)
        let isWornOutEarly = pair.gateway.link.isWornOut
        #expect(!isWornOutEarly)
        #expect(try #require(pair.open()).id == 2)
        let isWornOut = pair.gateway.link.isWornOut
        #expect(isWornOut)
        pair.gateway.link.goAway(.drain, retryAfterSeconds: 0, text: "")
        #expect(pair.open() == nil)
        pair.exchange()
        #expect(pair.agent.goodbyes.map(\.code) == [.drain])
    }

    @Test("GOAWAY is sent before everything else, and nothing after it")
    func lastWords() throws {
        let (pair, here, _) = try withStream()
        pair.gateway.link.congestion(true, now: 0)
        pair.gateway.link.send(here, [UInt8](repeating: 0, count: 50_000).span.bytes, now: 0)
        pair.gateway.link.goAway(.replaced, retryAfterSeconds: 0, text: "bye")
        pair.agent.feed(pair.gateway.output(atMost: 1 << 20, now: 0), now: 0)
        #expect(pair.agent.goodbyes.map(\.code) == [.replaced])
        #expect(pair.agent.edges.values.allSatisfy { $0.received == 0 })
        #expect(pair.gateway.output(atMost: 1 << 20, now: 0).isEmpty)
    }
}
