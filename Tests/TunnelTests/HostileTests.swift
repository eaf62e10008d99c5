import Bytes
import TestSupport
import Testing
import Tunnel
import Wire

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
    Attack(
        description: "open by the agent", code: .protocolViolation,
        frames: frame(2, 7, [UInt8](repeating: 0, count: 48))),
    Attack(description: "name not UTF-8", code: .protocolViolation, frames: frame(0, 4, [0, 1, 1, 1, 0, 0, 0xFF])),
    Attack(
        description: "goodbye too long", code: .protocolViolation,
        frames: frame(0, 14, [UInt8](repeating: 65, count: 200))),
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
    @Test("are disconnected with the right code, and nothing traps", arguments: attacks)
    private func attack(_ attack: Attack) throws {
        let (pair, _, _) = try withStream()
        pair.gateway.feed(attack.frames, now: 0)
        #expect(pair.gateway.violations.map(\.code) == [attack.code])
        #expect(pair.gateway.link.phase == .closed)
        // Later bytes are ignored.
        pair.gateway.feed(attack.frames, now: 0)
        #expect(pair.gateway.violations.count == 1)
    }

    @Test("the answers that a peer does not read are bounded")
    func owed() throws {
        var limits = LinkLimits()
        limits.glitchBurst = 1_000_000
        let (pair, _, _) = try withStream(limits)
        pair.gateway.feed((0..<5_000).flatMap { frame(0, 12, number(UInt64($0))) }, now: 0)
        #expect(pair.gateway.violations.map(\.code) == [.owed])
    }

    @Test("a gateway that opens streams and reads no resets is disconnected")
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

    @Test("before the login a frame may have at most 4 KiB, and a longer one is refused by its header")
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
                // Valid headers around random payloads get further than random bytes.
                let payload = (0..<Int.random(in: 0..<64, using: &generator)).map { _ in
                    UInt8.random(in: 0...255, using: &generator)
                }
                let id = UInt32.random(in: 0...2, using: &generator)
                let type = UInt8.random(in: 0...16, using: &generator)
                end.feed(
                    frame(id, type, flags: [0, 0, 1, 0x80].randomElement(using: &generator) ?? 0, payload), now: 0)
            }
        }
    }
}
