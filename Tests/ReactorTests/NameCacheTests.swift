import Reactor
import Testing

/// A resolver whose queries are answered by the test.
private final class FakeResolver {
    typealias Completion = (Result<[SocketAddress], UVError>) -> Void

    private(set) var queries: [(host: String, family: NameCache.Family)] = []
    private var waiting: [(host: String, family: NameCache.Family, completion: Completion)] = []

    func query(_ host: String, _ family: NameCache.Family, _ completion: @escaping Completion) {
        self.queries.append((host, family))
        self.waiting.append((host, family, completion))
    }

    /// Answers the oldest query of this kind.
    func answer(_ host: String, _ family: NameCache.Family, _ result: Result<[SocketAddress], UVError>) throws {
        let index = try #require(self.waiting.firstIndex { $0.host == host && $0.family == family })
        self.waiting.remove(at: index).completion(result)
    }

    var running: Int { self.waiting.count }

    func drop() { self.waiting = [] }
}

private let four = SocketAddress.loopback4(port: 0)
private let six = SocketAddress.loopback6(port: 0)
private let noSuchName = UVError(code: -3008)
private let tryAgain = UVError(code: -3001)

@Suite("NameCache", .serialized, .timeLimit(.minutes(1)))
struct NameCacheTests {
    /// Runs `body` with a new loop, a cache and its resolver.
    private func withCache(
        lanes: Int = 8, _ body: (EventLoop, NameCache, FakeResolver) throws -> Void
    ) throws {
        let loop = try EventLoop()
        let resolver = FakeResolver()
        let cache = NameCache(loop: loop, lanes: lanes) { resolver.query($0, $1, $2) }
        try body(loop, cache, resolver)
        resolver.drop()
        loop.close()
    }

    /// The result of a lookup, once it is complete.
    private final class Outcome {
        var result: Result<[SocketAddress], UVError>?

        var addresses: [SocketAddress]? { try? self.result?.get() }
    }

    private func lookUp(_ cache: NameCache, _ host: String = "a") -> Outcome {
        let outcome = Outcome()
        _ = cache.lookUp(host) { outcome.result = $0 }
        return outcome
    }

    private func pass(_ milliseconds: UInt64, on loop: EventLoop) {
        var isOver = false
        let timer = LoopTimer(loop: loop) { isOver = true }
        timer.start(after: milliseconds)
        #expect(loop.run { isOver })
        timer.close()
    }

    @Test("concurrent lookups of a name share one query per family")
    func shared() throws {
        try withCache { loop, cache, resolver in
            let outcomes = (0..<20).map { _ in lookUp(cache) }
            #expect(resolver.queries.map(\.family) == [.six, .four])
            try resolver.answer("a", .six, .failure(noSuchName))
            try resolver.answer("a", .four, .success([four]))
            #expect(outcomes.allSatisfy { $0.addresses == [four] })
            let soon = lookUp(cache)
            #expect(soon.result == nil, "never from inside the call")
            #expect(loop.run { soon.addresses == [four] } && resolver.queries.count == 2)
        }
    }

    @Test("a family that does not answer delays the result by 50 ms", arguments: [NameCache.Family.four, .six])
    func independent(_ family: NameCache.Family) throws {
        try withCache { loop, cache, resolver in
            let began = loop.now
            let outcome = lookUp(cache)
            let address = family == .four ? four : six
            try resolver.answer("a", family, .success([address]))
            #expect(outcome.result == nil)
            #expect(loop.run { outcome.addresses == [address] })
            #expect(loop.now - began >= 50)
        }
    }

    @Test("IPv6 comes first and the families alternate if both answer in time")
    func both() throws {
        try withCache { _, cache, resolver in
            let outcome = lookUp(cache)
            try resolver.answer("a", .four, .success([four, .loopback4(port: 9)]))
            try resolver.answer("a", .six, .success([six]))
            #expect(outcome.addresses == [six, four, .loopback4(port: 9)])
        }
    }

    @Test("a name without addresses is an error; a name that had addresses keeps the last ones")
    func failures() throws {
        try withCache { loop, cache, resolver in
            let unknown = lookUp(cache, "unknown")
            try resolver.answer("unknown", .six, .failure(noSuchName))
            try resolver.answer("unknown", .four, .failure(tryAgain))
            guard case .failure(noSuchName) = unknown.result else { return _ = Issue.record("no error") }
            _ = lookUp(cache)
            try resolver.answer("a", .four, .success([four]))
            try resolver.answer("a", .six, .success([six]))
            self.pass(NameCache.freshMilliseconds, on: loop)
            for error in [noSuchName, tryAgain] {
                let outcome = lookUp(cache)
                try resolver.answer("a", .six, .failure(error))
                #expect(outcome.result == nil)
                try resolver.answer("a", .four, .failure(error))
                #expect(outcome.addresses == [six, four])
            }
            // The name has moved to the other family.
            let moved = lookUp(cache)
            try resolver.answer("a", .six, .failure(noSuchName))
            try resolver.answer("a", .four, .success([.loopback4(port: 9)]))
            #expect(moved.addresses == [.loopback4(port: 9)])
        }
    }

    @Test("a query that takes longer than a second is answered from the cache if the name is known")
    func patience() throws {
        try withCache { loop, cache, resolver in
            _ = lookUp(cache)
            try resolver.answer("a", .four, .success([four]))
            try resolver.answer("a", .six, .failure(noSuchName))
            self.pass(NameCache.freshMilliseconds, on: loop)
            let began = loop.now
            let known = lookUp(cache)
            let unknown = lookUp(cache, "b")
            #expect(loop.run { known.addresses == [four] })
            #expect(loop.now - began >= NameCache.patienceMilliseconds)
            #expect(unknown.result == nil)
            try resolver.answer("a", .four, .success([.loopback4(port: 9)]))
            let next = lookUp(cache)
            #expect(loop.run { next.addresses == [.loopback4(port: 9)] }, "the late answer counts")
        }
    }

    @Test("names with a dead resolver leave lanes for other names, and the gateway's lanes stay reserved")
    func lanes() throws {
        try withCache(lanes: 4) { _, cache, resolver in
            cache.giveOwnLane(to: "gateway")
            let outcomes = ["a", "b"].map { lookUp(cache, $0) }
            #expect(resolver.running == 2, "two are kept")
            let gateway = lookUp(cache, "gateway")
            #expect(resolver.running == 4)
            try resolver.answer("gateway", .four, .success([four]))
            try resolver.answer("gateway", .six, .failure(noSuchName))
            #expect(gateway.addresses == [four])
            #expect(resolver.running == 2)
            try resolver.answer("a", .six, .failure(tryAgain))
            #expect(resolver.queries.last?.host == "b")
            try resolver.answer("a", .four, .failure(tryAgain))
            #expect(outcomes[0].result != nil && outcomes[1].result == nil && resolver.running == 2)
        }
    }

    @Test("a cancelled lookup is not completed, but its answer is cached for others")
    func cancelled() throws {
        try withCache { loop, cache, resolver in
            let cancelled = cache.lookUp("a") { _ in Issue.record("was called") }
            cancelled.cancel()
            try resolver.answer("a", .four, .success([four]))
            try resolver.answer("a", .six, .failure(noSuchName))
            let outcome = lookUp(cache)
            #expect(loop.run { outcome.addresses == [four] } && resolver.queries.count == 2)
        }
    }

    @Test("the system's resolver runs on threads")
    func real() throws {
        let loop = try EventLoop()
        var found: [SocketAddress]?
        _ = loop.names.lookUp("127.0.0.1") { found = try? $0.get() }
        #expect(loop.run { found != nil })
        #expect(found == [four])
        loop.run()
        loop.close()
    }
}
