import Testing
import Tunnel
import Version1
import Wire

/// Version 1 has no flow control, so a slow edge must not slow down the others.
@Suite("Version 1, slow edges")
struct SlowStreamTests {
    private let piece = [UInt8](repeating: 7, count: 32_768)

    /// Feeds a stream until the link takes no more input. Returns the number of bytes queued then.
    private func fill(_ end: End, _ id: UInt32) -> Int {
        var count = 0
        while end.takesInput, count < 2 << 20 {
            end.feed(frame(payload, id, self.piece))
            count += self.piece.count
        }
        return count
    }

    @Test("the link stops reading at 768 KiB for a slow edge, and continues when the edge has taken some")
    func waits() throws {
        let end = readyGateway()
        end.consumes = false
        let key = try #require(end.open())
        #expect(fill(end, 1) == 768 * 1_024)
        #expect(end.waitingBytes == 768 * 1_024)
        end.link.consumed(key, 1, now: 0)
        #expect(end.takesInput)
        #expect(end.slowStreams() == [])
    }

    @Test("an edge that takes nothing is cut after a second, and the others continue")
    func cut() throws {
        let end = readyGateway()
        end.consumes = false
        let slow = try #require(end.open())
        let other = try #require(end.open())
        end.now = 1_000
        _ = fill(end, 1)
        #expect(end.slowStreams() == [])
        end.now = 1_999
        #expect(end.slowStreams() == [])
        end.now = 2_000
        #expect(end.slowStreams() == [slow])
        #expect(end.takesInput)
        #expect(end.output() == frame(close, 1))
        #expect(end.waitingBytes == 0, "nothing that waited will be written on")
        end.feed(frame(payload, 1, [1]) + frame(payload, 2, [2]))
        #expect(end.data[other] == [2])
    }

    @Test("an edge that takes 128 KiB in a second is not cut, even if only the kernel knows")
    func patience() throws {
        let end = readyGateway()
        end.consumes = false
        let key = try #require(end.open())
        // More than the limit, as one read of the link may bring.
        end.feed((0..<32).flatMap { _ in frame(payload, 1, self.piece) })
        end.unacknowledged[key] = 1_000_000
        #expect(end.slowStreams() == [])
        end.now += 1_000
        end.link.consumed(key, 128 * 1_024, now: end.now)
        #expect(end.slowStreams() == [])
        #expect(!end.takesInput)
        end.now += 1_000
        end.unacknowledged[key] = 1_000_000 - 128 * 1_024
        #expect(end.slowStreams() == [])
        end.now += 1_000
        end.link.consumed(key, 128 * 1_024 - 1, now: end.now)
        #expect(!end.takesInput)
        #expect(end.slowStreams() == [key])
    }

    @Test("each slow edge has its own time, which does not run while its backend is being connected")
    func separately() throws {
        let end = readyAgent()
        end.consumes = false
        for id in [UInt32(1), 2] { end.feed(frame(payload, id, [1])) }
        let keys = end.events.compactMap { if case .opened(let key, _) = $0 { key } else { nil } }
        try #require(keys.count == 2)
        end.link.accept(keys[1], now: 0)
        end.feed((0..<24).flatMap { _ in frame(payload, 1, self.piece) + frame(payload, 2, self.piece) })
        #expect(end.slowStreams() == [])
        end.now = 1_000
        #expect(end.slowStreams() == [keys[1]])
        end.now = 4_000
        #expect(end.slowStreams() == [])
        end.link.accept(keys[0], now: 4_000)
        #expect(end.slowStreams() == [])
        end.now = 5_000
        #expect(end.slowStreams() == [keys[0]])
        #expect(end.takesInput)
    }

    @Test("when memory is short, fewer bytes are queued")
    func pressure() throws {
        let end = readyGateway(budget: ByteBudget(limit: 300_000))
        end.consumes = false
        _ = try #require(end.open())
        // The limit is 64 KiB once less than one read is left of the budget.
        #expect(fill(end, 1) == 65_536)
    }

    @Test("bytes may be queued indefinitely unless a limit is configured")
    func stalled() throws {
        let patient = readyGateway()
        patient.consumes = false
        _ = try #require(patient.open())
        patient.feed(frame(payload, 1, [1]))
        patient.now = 3_600_000
        #expect(patient.tick().expired.isEmpty)

        var limits = Version1Limits()
        limits.stalled = 60_000
        let end = readyGateway(limits: limits)
        end.consumes = false
        let key = try #require(end.open())
        end.feed(frame(payload, 1, [1]))
        end.now = 59_999
        #expect(end.tick().expired.isEmpty)
        end.link.progressed(key, now: 59_999)
        end.now = 119_998
        #expect(end.tick().expired.isEmpty)
        end.now = 119_999
        #expect(end.tick().expired.map(\.expiry) == [.reset(.stalled)])
        #expect(end.output() == frame(close, 1))
    }

    @Test("queued bytes are bounded and freed, whatever is sent in whatever pieces")
    func bounded() throws {
        for seed in 0..<20 as Range<UInt64> {
            var state = seed
            func random(_ below: Int) -> Int {
                state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
                return Int((state >> 33) % UInt64(below))
            }
            let end = readyGateway()
            end.consumes = false
            var keys = try (0..<8).map { _ in try #require(end.open()) }
            var waiting: [StreamKey: Int] = [:]
            for _ in 0..<2_000 {
                end.now += UInt64(random(50))
                if end.takesInput {
                    // One read of the link.
                    var read: [UInt8] = []
                    while read.count < 200_000 {
                        read += frame(payload, UInt32(1 + random(8)), [UInt8](repeating: 1, count: random(60_000)))
                    }
                    let before = end.data
                    end.feed(read)
                    for (key, bytes) in end.data { waiting[key, default: 0] += bytes.count - (before[key]?.count ?? 0) }
                } else {
                    for key in end.slowStreams() {
                        waiting[key] = nil
                        end.link.release(key)
                        keys.removeAll { $0 == key }
                    }
                }
                #expect(waiting.values.allSatisfy { $0 <= 1 << 20 })
                #expect(end.waitingBytes == waiting.values.reduce(0, +))
                guard let key = keys.isEmpty ? nil : keys[random(keys.count)], let atMost = waiting[key], atMost > 0
                else {
                    continue
                }
                let count = 1 + random(atMost)
                waiting[key] = atMost - count
                end.link.consumed(key, count, now: end.now)
                end.data[key] = []
            }
            for key in keys { end.link.release(key) }
            #expect(end.waitingBytes == 0)
            #expect(end.streamCount == 0)
        }
    }
}
