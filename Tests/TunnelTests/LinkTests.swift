import Bytes
import Testing
import Tunnel
import Wire

/// Encodes frames by hand, as a hostile peer would.
private func frame(_ id: UInt32, _ type: UInt8, flags: UInt8 = 0, _ payload: [UInt8] = []) -> [UInt8] {
    var queue = ByteQueue()
    queue.append(id)
    queue.append(type)
    queue.append(flags)
    queue.append(UInt16(payload.count))
    queue.append(payload)
    return queue.withReadable { Array($0) }
}

private func number(_ value: UInt64) -> [UInt8] { (0..<8).map { UInt8(truncatingIfNeeded: value >> (56 - 8 * $0)) } }

private func connected(
    _ limits: LinkLimits = LinkLimits(), bytesToSend: @escaping (UInt32, Role) -> Int = { _, _ in 0 }
) -> TunnelPair {
    let pair = TunnelPair(gatewayLimits: limits, agentLimits: limits, bytesToSend: bytesToSend)
    pair.connect()
    return pair
}

/// A pair with one accepted stream.
private func withStream(_ limits: LinkLimits = LinkLimits()) throws -> (TunnelPair, StreamKey, StreamKey) {
    let pair = connected(limits)
    let key = try #require(pair.open())
    pair.exchange()
    let there = try #require(pair.agent.awaitingAccept.first)
    pair.agent.accept(there, now: pair.now)
    pair.exchange()
    return (pair, key, there)
}

@Suite("Link")
struct LinkTests {
    @Test("comes up by HELLO, LOGIN and WELCOME, and measures a round trip")
    func login() {
        let pair = connected()
        #expect(pair.gateway.link.phase == .up)
        #expect(pair.agent.link.phase == .up)
        #expect(pair.agent.welcomed == Welcome(linkID: 1, maximumNames: 4))
        #expect(pair.agent.link.roundTrip == 0)
        #expect(pair.gateway.link.peer?.software == "test agent")
    }

    @Test("carries a registration and its answer")
    func register() {
        let pair = connected()
        pair.agent.link.register(Register(exposure: 2, port: 0, name: "example"))
        pair.exchange()
        #expect(pair.agent.registered == [Registered(exposure: 2, code: .none, port: 33_605, text: "127.0.0.1:33605")])
    }

    @Test("ends one direction by FIN and keeps the other going")
    func halfClose() throws {
        let (pair, here, there) = try withStream()
        pair.gateway.link.finish(here, now: 0)
        pair.exchange()
        #expect(pair.agent.edges[there]?.sawEnd == true)
        let answer = (0..<100).map { SimulatedEnd.pattern(here.id, .agent, $0) }
        pair.agent.link.send(there, answer.span.bytes, now: 0)
        pair.agent.link.finish(there, now: 0)
        pair.exchange()
        #expect(pair.gateway.edges[here]?.received == 100)
        #expect(pair.gateway.edges[here]?.sawEnd == true)
        #expect(pair.gateway.failures.isEmpty)
    }

    @Test("lets data follow OPEN before ACCEPT, up to the window of HELLO")
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

    @Test("an edge that was refused room is named once there is room again")
    func resumption() throws {
        let (pair, here, there) = try withStream()
        let window = pair.gateway.link.sendAllowance(here)
        let bytes = (0..<window).map { SimulatedEnd.pattern(here.id, .gateway, $0) }
        pair.gateway.link.send(here, bytes.span.bytes, now: 0)
        #expect(pair.gateway.link.sendAllowance(here) == 0)
        pair.exchange()
        pair.agent.consume(try #require(pair.agent.edges[there]), most: window, now: 0)
        pair.now += 10
        pair.gateway.feed(pair.agent.output(most: 1 << 20, now: pair.now), now: pair.now)
        #expect(pair.gateway.link.nextResumable() == here)
        #expect(pair.gateway.link.sendAllowance(here) > 0)
    }

    @Test("a reset drops what is queued, tells the peer and frees the slot only on release")
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

    @Test("serves streams in turn when the link is the bottleneck, and a newly active one first")
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
            // One byte wanted is one frame served.
            let frame = pair.gateway.output(most: 1, now: 0)
            #expect(frame.count == 1)
            var rest: [UInt8] = frame
            pair.gateway.link.drainOutbox { bytes in
                rest += Array(bytes)
                return bytes.count
            }
            if let header = FrameHeader(rest.span.bytes, at: 0) { order.append(header.id) }
        }
        for _ in 0..<4 { takeOne() }
        pair.gateway.link.send(keys[2], [UInt8](repeating: 0, count: 10).span.bytes, now: 0)
        for _ in 0..<3 { takeOne() }
        #expect(order == [1, 2, 1, 2, 3, 1, 2])
    }

    @Test("grants less and less as the budget is used up, but always something")
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

    @Test("grows the window of a fast stream on a long round trip, up to its bound")
    func windowGrowth() throws {
        let (pair, _, there) = try withStream()
        pair.agent.link.clockJumped(now: 0)
        let ping = pair.agent.output(most: 1 << 20, now: 0)
        pair.gateway.feed(ping, now: 0)
        pair.agent.feed(pair.gateway.output(most: 1 << 20, now: 100), now: 100)
        #expect(pair.agent.link.roundTrip == 100)
        var limit = LinkLimits().startWindow
        var sent = 0
        for step in 0..<90 {
            let now = UInt64(200 + step)
            let size = min(16_376, limit - sent)
            pair.agent.feed(frame(there.id, 9, (0..<size).map { SimulatedEnd.pattern(there.id, .gateway, sent + $0) }), now: now)
            sent += size
            pair.agent.link.consumed(there, size, now: now)
            let output = pair.agent.output(most: 1 << 20, now: now)
            if !output.isEmpty {
                limit = output.suffix(8).reduce(0) { $0 << 8 | Int($1) }
            }
        }
        #expect(pair.agent.failures.isEmpty)
        #expect(limit - sent > 2 << 20)
        #expect(limit - sent <= LinkLimits().mostWindow)
    }

    @Test("a stream whose edge is gone keeps its slot until its end is sent, and no longer")
    func orphan() throws {
        let (pair, here, there) = try withStream()
        pair.agent.link.finish(there, now: 0)
        pair.exchange()
        pair.gateway.link.congestion(true, now: 0)
        pair.gateway.link.send(here, [1, 2, 3].span.bytes, now: 0)
        pair.gateway.link.finish(here, now: 0)
        pair.gateway.link.release(here)
        #expect(pair.gateway.link.streamCount == 1)
        _ = pair.gateway.output(most: 1 << 20, now: 0)
        #expect(pair.gateway.link.streamCount == 0)
        #expect(pair.gateway.link.statistics.resetsSent == 0)
    }
}

extension LinkTests {
    @Test("a reset by the peer frees the slot of a stream whose edge is gone")
    func orphanReset() throws {
        for resetsItself in [false, true] {
            let (pair, here, there) = try withStream()
            pair.agent.link.finish(there, now: 0)
            pair.exchange()
            pair.gateway.link.congestion(true, now: 0)
            pair.gateway.link.send(here, [1, 2, 3].span.bytes, now: 0)
            pair.gateway.link.finish(here, now: 0)
            pair.gateway.link.release(here)
            #expect(pair.gateway.link.streamCount == 1)
            if resetsItself {
                pair.gateway.link.reset(here, .idle)
            } else {
                pair.gateway.feed(frame(here.id, 11, [0, 6]), now: 0)
            }
            #expect(pair.gateway.link.streamCount == 0)
            #expect(pair.gateway.link.grantedBytes == 0)
        }
    }

    @Test("a stream that was opened before the gateway read our goodbye is declined, and the others go on")
    func openCrossesGoodbye() throws {
        let (pair, here, there) = try withStream()
        let late = try #require(pair.open())
        let crossing = pair.gateway.output(most: 1 << 20, now: 0)
        pair.agent.link.goAway(.drain)
        pair.agent.feed(crossing, now: 0)
        pair.exchange()
        #expect(pair.agent.violations.isEmpty && pair.gateway.violations.isEmpty)
        #expect(pair.gateway.edges[late]?.wasReset == true)
        #expect(pair.gateway.edges[here]?.wasReset == false)
        pair.agent.link.send(there, [SimulatedEnd.pattern(here.id, .agent, 0)].span.bytes, now: 0)
        pair.exchange()
        #expect(pair.gateway.edges[here]?.received == 1)
        #expect(pair.open() == nil)
    }

    @Test("the last words go out before everything else, and nothing after them")
    func lastWords() throws {
        let (pair, here, _) = try withStream()
        pair.gateway.link.congestion(true, now: 0)
        pair.gateway.link.send(here, [UInt8](repeating: 0, count: 50_000).span.bytes, now: 0)
        pair.gateway.link.goAway(.replaced, text: "bye")
        pair.agent.feed(pair.gateway.output(most: 1 << 20, now: 0), now: 0)
        #expect(pair.agent.goodbyes.map(\.code) == [.replaced])
        #expect(pair.agent.edges.values.allSatisfy { $0.received == 0 })
        #expect(pair.gateway.output(most: 1 << 20, now: 0).isEmpty)
    }
}

@Suite("Deadlines")
struct DeadlineTests {
    private func tick(_ end: SimulatedEnd, _ now: UInt64) -> (LinkTick, [ErrorCode]) {
        var expired: [(StreamKey, ErrorCode)] = []
        let verdict = end.link.tick(now: now, expired: &expired)
        return (verdict, expired.map { $0.1 })
    }

    @Test("a login has 15 s")
    func login() {
        let pair = TunnelPair()
        #expect(tick(pair.gateway, 14_999).0 == .none)
        #expect(tick(pair.gateway, 15_000).0 == .close(.handshakeTimeout))
        #expect(pair.gateway.link.phase == .closed)
    }

    @Test("a silent peer is pinged after 15 s and dead after 45 s, and any byte is life")
    func liveness() {
        let pair = connected()
        let before = pair.gateway.output(most: 1 << 20, now: 0)
        #expect(before.isEmpty)
        #expect(tick(pair.gateway, 14_999).0 == .none)
        #expect(pair.gateway.output(most: 1 << 20, now: 14_999).isEmpty)
        #expect(tick(pair.gateway, 15_000).0 == .none)
        #expect(pair.gateway.output(most: 1 << 20, now: 15_000).count == 16)
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
        #expect(tick(pair.gateway, 10_000).1 == [.timeout])
    }

    @Test("bytes that cannot be written on for 60 s end their stream, and no other")
    func stalled() throws {
        let (pair, here, there) = try withStream()
        let other = try #require(pair.open())
        pair.exchange()
        pair.agent.accept(try #require(pair.agent.awaitingAccept.last), now: 0)
        pair.exchange()
        pair.agent.link.send(there, [SimulatedEnd.pattern(here.id, .agent, 0)].span.bytes, now: 0)
        pair.exchange()
        pair.gateway.link.heard(now: 59_000)
        #expect(tick(pair.gateway, 59_999).1.isEmpty)
        #expect(tick(pair.gateway, 60_000).1 == [.stalled])
        #expect(pair.gateway.edges[other]?.wasReset == false)
    }

    @Test("a half-closed stream that is silent for 5 minutes ends; a silent open one does not")
    func halfClosedIdle() throws {
        let (pair, here, _) = try withStream()
        pair.gateway.link.heard(now: 1_000_000)
        #expect(tick(pair.gateway, 1_000_000).1.isEmpty)
        pair.gateway.link.finish(here, now: 1_000_000)
        pair.gateway.link.heard(now: 1_299_000)
        #expect(tick(pair.gateway, 1_299_999).1.isEmpty)
        #expect(tick(pair.gateway, 1_300_000).1 == [.idle])
    }

    @Test("a socket that takes nothing for 30 s ends the link")
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

private struct Attack: Sendable, CustomStringConvertible {
    let description: String
    let code: ErrorCode
    let frames: [UInt8]
}

/// Frames of a hostile agent, sent to a gateway with one open, accepted stream (id 1) whose limit is 256 KiB.
private let attacks: [Attack] = [
    Attack(description: "unknown type", code: .protocolViolation, frames: frame(0, 99)),
    Attack(description: "unknown flag", code: .protocolViolation, frames: frame(0, 12, flags: 2, number(1))),
    Attack(description: "data on the link", code: .protocolViolation, frames: frame(0, 9, [1])),
    Attack(description: "ping on a stream", code: .protocolViolation, frames: frame(1, 12, number(1))),
    Attack(description: "short ping", code: .protocolViolation, frames: frame(0, 12, [1])),
    Attack(description: "empty data", code: .protocolViolation, frames: frame(1, 9)),
    Attack(description: "stream never opened", code: .protocolViolation, frames: frame(2, 9, [1])),
    Attack(description: "largest stream id", code: .protocolViolation, frames: frame(.max, 9, [1])),
    Attack(description: "accepted twice", code: .protocolViolation, frames: frame(1, 8, number(1 << 20))),
    Attack(description: "limit lowered", code: .flowControl, frames: frame(1, 10, number(1))),
    Attack(
        description: "data after the end", code: .protocolViolation,
        frames: frame(1, 9, flags: 1, [1]) + frame(1, 9, [1])),
    Attack(
        description: "past the limit", code: .flowControl,
        frames: (0..<17).flatMap { _ in frame(1, 9, [UInt8](repeating: 0, count: 16_376)) }),
    Attack(description: "frame too long", code: .protocolViolation, frames: [0, 0, 0, 1, 9, 0, 0xFF, 0xFF]),
    Attack(description: "a second login", code: .protocolViolation, frames: frame(0, 2, [0])),
    Attack(description: "open by the agent", code: .protocolViolation, frames: frame(2, 7, [UInt8](repeating: 0, count: 48))),
    Attack(description: "name not UTF-8", code: .protocolViolation, frames: frame(0, 4, [0, 1, 1, 1, 0, 0, 0xFF])),
    Attack(description: "goodbye too long", code: .protocolViolation, frames: frame(0, 14, [UInt8](repeating: 65, count: 200))),
    Attack(
        description: "ping flood", code: .glitches,
        frames: (0..<1_100).flatMap { frame(0, 12, number(UInt64($0))) }),
    Attack(
        description: "ignorable flood", code: .glitches,
        frames: (0..<1_100).flatMap { _ in frame(0, 99, flags: 0x80) }),
    Attack(
        description: "register churn", code: .glitches,
        frames: (0..<40).flatMap { _ in frame(0, 6, [0, 1]) }),
    Attack(
        description: "needless windows", code: .glitches,
        frames: (0..<1_200).flatMap { _ in frame(1, 10, number(1 << 40)) }),
]

@Suite("Hostile peers")
struct HostileTests {
    @Test("are cut with the right code, and nothing traps", arguments: attacks)
    private func attack(_ attack: Attack) throws {
        let (pair, _, _) = try withStream()
        pair.gateway.feed(attack.frames, now: 0)
        #expect(pair.gateway.violations.map(\.code) == [attack.code])
        #expect(pair.gateway.link.phase == .closed)
        // What comes after is not looked at.
        pair.gateway.feed(attack.frames, now: 0)
        #expect(pair.gateway.violations.count == 1)
    }

    @Test("answers that the peer does not read are bounded")
    func owed() throws {
        var limits = LinkLimits()
        limits.glitchBurst = 1_000_000
        let (pair, _, _) = try withStream(limits)
        pair.gateway.feed((0..<5_000).flatMap { frame(0, 12, number(UInt64($0))) }, now: 0)
        #expect(pair.gateway.violations.map(\.code) == [.owed])
    }

    @Test("a gateway that opens streams and reads no resets is cut")
    func resetsOwed() throws {
        var limits = LinkLimits()
        limits.maximumStreams = 1
        let (pair, _, _) = try withStream(limits)
        pair.agent.feed((2..<9_000).flatMap { frame(UInt32($0), 7, [UInt8](repeating: 0, count: 48)) }, now: 0)
        #expect(pair.agent.violations.map(\.code) == [.owed])
    }

    @Test("limits near 2^64 do not overflow")
    func hugeLimits() throws {
        let (pair, here, _) = try withStream()
        pair.gateway.feed(frame(1, 10, number(.max)), now: 0)
        #expect(pair.gateway.violations.isEmpty)
        #expect(pair.gateway.link.sendAllowance(here) > 1 << 40)
        pair.gateway.link.send(here, [1].span.bytes, now: 0)
        #expect(pair.gateway.violations.isEmpty)
    }

    @Test("before the login a frame has 4 KiB at most, judged by its header")
    func preLogin() {
        let pair = TunnelPair()
        pair.gateway.feed([0, 0, 0, 0, 1, 0, 0x10, 0x01], now: 0)
        #expect(pair.gateway.violations.map(\.code) == [.protocolViolation])
    }

    @Test("another version is refused with its own code")
    func version() {
        let pair = TunnelPair()
        var queue = ByteQueue()
        Hello(lowest: 3, highest: 9, streamWindow: 1, maximumStreams: 1, software: "").encode(into: &queue)
        pair.gateway.feed(queue.withReadable { Array($0) }, now: 0)
        #expect(pair.gateway.violations.map(\.code) == [.version])
    }

    @Test("random bytes never trap", arguments: [Role.gateway, .agent])
    func garbage(_ role: Role) {
        var generator = SeededGenerator(seed: 7)
        for _ in 0..<300 {
            let pair = connected()
            _ = pair.open()
            pair.exchange()
            let end = role == .gateway ? pair.gateway : pair.agent
            for _ in 0..<40 {
                // Valid headers around random payloads reach further than noise.
                let payload = (0..<Int.random(in: 0..<64, using: &generator)).map { _ in
                    UInt8.random(in: 0...255, using: &generator)
                }
                let id = UInt32.random(in: 0...2, using: &generator)
                let type = UInt8.random(in: 0...16, using: &generator)
                end.feed(frame(id, type, flags: [0, 0, 1, 0x80].randomElement(using: &generator) ?? 0, payload), now: 0)
            }
        }
    }
}

@Suite("State table")
struct StateTableTests {
    @Test("every frame in every phase is either allowed or ends the link", arguments: [Role.gateway, .agent])
    func walk(_ role: Role) {
        for phase in LinkPhase.allCases {
            for type in FrameType.allCases {
                let allowed = phase.allows(type, at: role)
                if phase == .closed { #expect(!allowed) }
                if type == .hello { #expect(allowed == (phase == .awaitingHello)) }
                if type == .data { #expect(allowed == (phase == .up || phase == .leaving || phase == .draining)) }
            }
        }
        #expect(LinkPhase.up.allows(.open, at: .agent))
        #expect(!LinkPhase.draining.allows(.open, at: .agent))
        #expect(!LinkPhase.up.allows(.open, at: .gateway))
        #expect(!LinkPhase.awaitingLogin.allows(.register, at: .gateway))
    }

    @Test("is the table of docs/protocol.md")
    func documented() throws {
        let rows = try Document.rows(after: "<!-- state-table -->")
        let phases: [(LinkPhase, Role)] = [
            (.awaitingHello, .gateway), (.awaitingLogin, .gateway), (.authenticating, .gateway), (.up, .gateway),
            (.leaving, .gateway), (.draining, .gateway), (.awaitingHello, .agent), (.awaitingWelcome, .agent),
            (.up, .agent), (.leaving, .agent), (.draining, .agent),
        ]
        #expect(rows.count == FrameType.allCases.count)
        for (type, row) in zip(FrameType.allCases, rows) {
            let expected = phases.map { $0.0.allows(type, at: $0.1) ? "yes" : "–" }
            #expect(Array(row.dropFirst()) == expected, "\(type)")
        }
    }
}
