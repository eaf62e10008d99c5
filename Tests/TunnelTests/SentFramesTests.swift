import Bytes
import Foundation
import TestSupport
import Testing
import Wire

@testable import Tunnel

@Suite("Frames that are kept")
struct SentFramesTests {
    /// Frames with known payloads, and their bytes that were sent.
    private final class Log {
        let pool = BlockPool()
        var frames: SentFrames
        /// All bytes of the frames, and how many of them were sent.
        var all: [UInt8] = []
        var sent = 0
        var isWrong = false

        init(keeps: Bool = true) {
            self.frames = SentFrames(pool: self.pool)
            self.frames.keeps = keeps
        }

        func append(_ size: Int) {
            let payload = Array(SimulatedEnd.pattern(1, .agent, self.all.count, count: size))
            self.frames.append(FrameHeader(id: 1, type: .data, length: size), payload.span.bytes)
            self.all += frame(1, FrameType.data.rawValue, payload)
        }

        func send(_ atMost: Int = .max) {
            self.frames.send(atMost: atMost) { piece in
                self.all.withUnsafeBytes { all in
                    guard let base = all.baseAddress, let bytes = piece.baseAddress else { return }
                    if memcmp(bytes, base + self.sent, piece.count) != 0 { self.isWrong = true }
                }
                self.sent += piece.count
            }
        }

        var kept: Int { self.frames.kept }
        var unsent: Int { self.frames.unsent }
        var memory: Int { self.frames.memory }
    }

    @Test("are sent in order, and again from the position of a new carrier", arguments: 1...40)
    func random(seed: UInt64) {
        var generator = SeededGenerator(seed: seed)
        let log = Log()
        var acknowledged = 0
        for _ in 0..<400 {
            switch Int.random(in: 0..<8, using: &generator) {
            case 0, 1, 2: log.append(Int.random(in: 0...16_376, using: &generator))
            case 3: for _ in 0..<20 { log.append(Int.random(in: 0...100, using: &generator)) }
            case 4, 5: log.send(Int.random(in: 1...100_000, using: &generator))
            case 6:
                acknowledged = Int.random(in: acknowledged...log.sent, using: &generator)
                log.frames.acknowledge(UInt64(acknowledged))
            default:
                acknowledged = Int.random(in: acknowledged...Int(log.frames.highest), using: &generator)
                log.frames.rewind(to: UInt64(acknowledged))
                log.sent = acknowledged
            }
            #expect(log.kept == log.all.count - acknowledged && log.unsent == log.all.count - log.sent)
            #expect(log.memory <= log.kept + 4 * BlockPool.blockSize * (log.kept / 40_000 + 1))
        }
        log.send()
        #expect(log.sent == log.all.count && !log.isWrong)
        log.frames.acknowledge(UInt64(log.all.count))
        log.frames.releaseStorageIfEmpty()
        #expect(log.memory == 0)
    }

    @Test("are sent in pieces that end with a whole frame")
    func pieces() {
        let log = Log()
        for size in [16_376, 16_376, 16_376, 16_376, 100, 16_376, 3] { log.append(size) }
        var ends: Set<Int> = []
        var position = 0
        while let header = FrameHeader(log.all.span.bytes, at: position) {
            position += 8 + header.length
            ends.insert(position)
        }
        while log.unsent > 0 {
            log.send(1)
            #expect(ends.contains(log.sent))
        }
    }

    @Test("are forgotten when they are sent, without a session")
    func withoutSession() {
        let log = Log(keeps: false)
        for _ in 0..<100 {
            for _ in 0..<5 { log.append(16_376) }
            log.send()
            #expect(log.kept == 0 && log.memory <= 2 * BlockPool.blockSize)
        }
        log.frames.releaseStorageIfEmpty()
        #expect(log.memory == 0)
    }

    @Test("of a quiet link take a small block")
    func quiet() {
        let log = Log()
        log.append(10)
        #expect(log.memory <= 4_096)
    }

    @Test("move from a queue frame by frame, as far as there is room")
    func fromQueue() {
        let log = Log()
        var queue = ByteQueue()
        for id in 0..<10_000 { NumberFrame.encode(.reset, id: UInt32(id), UInt16(6), into: &queue) }
        let expected = queue.withReadable { Array($0) }
        log.frames.append(framesOf: &queue, atMost: 25)
        #expect(log.unsent == 20)
        while !queue.isEmpty { log.frames.append(framesOf: &queue, atMost: 70_001) }
        log.all = expected
        log.send()
        #expect(log.sent == expected.count && !log.isWrong)
    }

    @Test("may double on a fast path that the bound limits, up to the limit")
    func bound() {
        var bound = KeepBound(first: 65_536, max: 262_144)
        func limited() -> Bool { bound.limited() }
        var position: UInt64 = 0
        var now: UInt64 = 0
        /// One bound's worth is acknowledged over a path with a round trip of 10 ms.
        func acknowledge(after milliseconds: UInt64, available: Int = 1 << 30) -> Int {
            position += UInt64(bound.bytes)
            now += milliseconds
            bound.acknowledged(position, roundTrip: 10, available: available, now: now)
            return bound.bytes
        }
        #expect(acknowledge(after: 10) == 65_536, "the bound did not limit")
        #expect(!limited())
        #expect(acknowledge(after: 70) == 131_072)
        #expect(!limited())
        #expect(acknowledge(after: 71) == 131_072, "the path is slow")
        #expect(!limited())
        #expect(acknowledge(after: 70, available: 1_000) == 131_072, "memory is short")
        #expect(!limited())
        #expect(acknowledge(after: 70) == 262_144)
        #expect(limited(), "it cannot grow")
        #expect(!limited(), "reported once")
        #expect(acknowledge(after: 70) == 262_144)
    }
}
