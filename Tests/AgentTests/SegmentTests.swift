import Reactor
import Testing

@testable import Agent
@testable import Relay

@Suite("Paths that lose large packets")
struct SegmentTests {
    private func isLikely(
        timeouts: Int = 0, unacknowledged: Int = 0, sinceAcknowledgement: UInt32 = 100, segment: Int = 1_448,
        heard: UInt64 = 100_000, hasStreams: Bool = true, isStuck: Bool = false, checks: Bool = true
    ) -> Bool {
        var watch = BlackHoleWatch(now: heard)
        func check(_ now: UInt64, isStuck: Bool = false) {
            watch.look(
                Sending(sinceAcknowledgement: sinceAcknowledgement, timeouts: timeouts, segment: segment),
                unacknowledged: unacknowledged, hasStreams: hasStreams, isStuck: isStuck, now: now)
        }
        if checks { for now in stride(from: heard, to: 100_000, by: 1_000) { check(now) } }
        check(100_000, isStuck: isStuck)
        return watch.isLikely
    }

    @Test("are suspected when large packets are lost repeatedly")
    func oursLost() {
        #expect(self.isLikely(timeouts: 3, unacknowledged: 1_201))
        #expect(!self.isLikely(timeouts: 2, unacknowledged: 100_000), "it may be chance")
        #expect(!self.isLikely(timeouts: 9, unacknowledged: 1_200), "a small packet is lost")
        #expect(!self.isLikely(timeouts: 9, unacknowledged: 100_000, segment: 1_188), "they are small already")
    }

    @Test("are suspected when everything is acknowledged but nothing arrives")
    func theirsLost() {
        #expect(self.isLikely(heard: 80_000))
        #expect(!self.isLikely(heard: 80_001), "it may be a pause")
        #expect(!self.isLikely(heard: 80_000, hasStreams: false), "nothing large was to come")
        #expect(!self.isLikely(sinceAcknowledgement: 19_500, heard: 80_000), "the peer may be gone")
        #expect(!self.isLikely(timeouts: 1, heard: 80_000), "the peer may be gone")
        #expect(!self.isLikely(heard: 30_000, checks: false), "this program was stopped")
        #expect(self.isLikely(heard: 97_000, isStuck: true), "a PING has no answer")
        #expect(!self.isLikely(heard: 97_001, isStuck: true))
    }

    @Test("lead to small segments, which stay only if the next link succeeds at once")
    func choice() {
        var choice = SegmentChoice(configured: nil)
        choice.linkEnded(nil)
        #expect(choice.largest == nil && choice.linkBegan() == nil)
        choice.linkEnded(1_200)
        #expect(choice.largest == 1_200)
        choice.failed()
        #expect(choice.largest == nil, "the path was down")
        choice.linkEnded(1_200)
        #expect(choice.linkBegan() == 1_200)
        #expect(choice.linkBegan() == nil, "said once")
        choice.failed()
        choice.linkEnded(nil)
        #expect(choice.largest == 1_200)
    }

    @Test("do not change a configured segment size")
    func configured() {
        var choice = SegmentChoice(configured: 1_400)
        choice.linkEnded(1_200)
        #expect(choice.largest == 1_400 && choice.linkBegan() == nil)
    }
}
