import Reactor
import Relay
import TestSupport
import Testing
import Tunnel

/// Two sessions of a link over a wire that splits the bytes into random pieces, and may break.
@Suite("A link between two sessions", .serialized, .timeLimit(.minutes(2)))
struct LinkPairTests {
    /// Random bytes: none, a few, or more than a window.
    private func bytes(_ generator: inout SeededGenerator) -> [UInt8] {
        let atMost = [10, 3_000, 100_000].randomElement(using: &generator) ?? 0
        let count = Int.random(in: 0...atMost, using: &generator)
        var bytes: [UInt8] = []
        bytes.reserveCapacity(count + 8)
        while bytes.count < count { withUnsafeBytes(of: generator.next()) { bytes += Array($0) } }
        return Array(bytes.prefix(count))
    }

    /// Opens one to five visitors, with requests and answers of any size.
    private func visit(_ pair: LinkPair, _ generator: inout SeededGenerator) throws {
        #expect(pair.loop.run { pair.progress.isReady || pair.wire.isBroken })
        for _ in 0..<Int.random(in: 1...5, using: &generator) {
            try pair.visit(request: self.bytes(&generator), answer: self.bytes(&generator))
        }
    }

    /// Checks what must hold however the link ended.
    private func check(_ pair: LinkPair) throws {
        try pair.settle()
        let areSound = pair.visits.allSatisfy(\.isSound)
        #expect(areSound, "a visitor has taken a truncated or changed answer for a whole one")
        let requests = pair.visits.map(\.request)
        let areWhole = pair.backend.whole.allSatisfy { requests.contains($0) }
        #expect(areWhole, "the backend has taken a truncated or changed request for a whole one")
        let arePrefixes = pair.backend.cut.allSatisfy { part in requests.contains { $0.starts(with: part) } }
        #expect(arePrefixes)
        pair.finish()
        for end in [pair.gateway, pair.agent] {
            #expect(end.reports == [.ending, .ended, .emptied])
            #expect(end.budget.used == 0 && end.budget.parked == 0)
        }
        #expect(pair.gateway.ends.count == pair.visits.count && pair.agent.ends.count == pair.progress.openedCount)
    }

    @Test("carries everything, for any piece size", arguments: 1...10 as ClosedRange<UInt64>)
    func pieces(_ seed: UInt64) throws {
        var generator = SeededGenerator(seed: seed)
        let pair = try LinkPair(seed: seed)
        try self.visit(pair, &generator)
        #expect(pair.loop.run { pair.areVisitsOver })
        #expect(pair.visits.allSatisfy { $0.visitor.hasEnded } && pair.backend.whole.count == pair.visits.count)
        for end in [pair.gateway, pair.agent] { #expect(end.ends.allSatisfy { $0 == .finished }) }
        try self.check(pair)
    }

    @Test(
        "never truncates data unnoticed and leaks nothing when it breaks at any byte",
        arguments: 1...40 as ClosedRange<UInt64>)
    func breaks(_ seed: UInt64) throws {
        var generator = SeededGenerator(seed: seed &* 7919)
        let atMost = [500, 5_000, 50_000, 150_000].randomElement(using: &generator) ?? 0
        let how = SeededWire.Break.allCases.randomElement(using: &generator) ?? .resetsBoth
        let pair = try LinkPair(seed: seed, cut: (Int.random(in: 0...atMost, using: &generator), how))
        try self.visit(pair, &generator)
        #expect(pair.loop.run { pair.areVisitsOver || pair.wire.isBroken })
        if how == .swallows {
            // Silence is detected by deadlines, which are tested elsewhere. Here the link ends at once.
            for end in [pair.gateway, pair.agent] { end.link.close(.failed(.timedOut)) }
        }
        #expect(pair.loop.run { pair.areVisitsOver }, "\(how): \(pair.gateway.ends) \(pair.agent.ends)")
        try self.check(pair)
    }
}
