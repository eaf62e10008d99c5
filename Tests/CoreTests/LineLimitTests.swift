import Testing
import Timing

@Suite("Rate limit of log lines caused by peers")
struct LineLimitTests {
    private static let few = LineLimit.Rate(burst: 3, perSecond: 1)
    private static let many = LineLimit.Rate(burst: 100, perSecond: 100)

    /// `lines` lines at the time `at`, in milliseconds. `written` of them pass.
    struct Step: Sendable {
        let at: UInt64
        let source: String
        let lines: Int
        let written: Int
    }

    @Test(
        "each source has its own burst and rate",
        arguments: [
            [Step(at: 0, source: "a", lines: 10, written: 3), Step(at: 0, source: "b", lines: 2, written: 2)],
            [Step(at: 0, source: "a", lines: 3, written: 3), Step(at: 999, source: "a", lines: 5, written: 0)],
            [Step(at: 0, source: "a", lines: 9, written: 3), Step(at: 2_000, source: "a", lines: 9, written: 2)],
            [Step(at: 0, source: "a", lines: 9, written: 3), Step(at: 60_000, source: "a", lines: 9, written: 3)],
        ])
    func rates(_ steps: [Step]) {
        var limit = LineLimit(source: Self.few, total: Self.many, now: 0)
        for step in steps {
            let written = (0..<step.lines).count(where: { _ in limit.take(step.source, now: step.at) })
            #expect(written == step.written, "\(step)")
        }
    }

    @Test("all sources together have a rate, too")
    func total() {
        var limit = LineLimit(source: Self.few, total: LineLimit.Rate(burst: 10, perSecond: 2), now: 0)
        func written(_ now: UInt64) -> Int {
            (0..<50).reduce(0) { $0 + (limit.take("\($1)", now: now) ? 1 : 0) }
        }
        #expect(written(0) == 10)
        #expect(written(1_000) == 2)
    }

    @Test("suppressed lines are reported once: when the flood ends, or after ten seconds")
    func reports() {
        var limit = LineLimit(source: Self.few, total: Self.many, now: 0)
        for _ in 0..<5 { _ = limit.take("a", now: 100) }
        #expect(limit.leftOut(now: 1_000) == [])
        let first = limit.leftOut(now: 2_100)
        #expect(first.map(\.source) == ["a"])
        #expect(first.map(\.count) == [2])
        #expect(limit.leftOut(now: 20_000) == [])
        for second in UInt64(20)...30 {
            for _ in 0..<4 { _ = limit.take("a", now: second * 1_000) }
            let reports = limit.leftOut(now: second * 1_000)
            #expect(reports.isEmpty == (second < 30), "at \(second) s")
        }
    }

    @Test("a quiet source is forgotten")
    func forgetting() {
        var limit = LineLimit(source: Self.few, total: Self.many, now: 0)
        for index in 0..<LineLimit.maxSources { _ = limit.take("\(index)", now: 0) }
        _ = limit.leftOut(now: 5_000)
        // The whole table is free again, so new sources have their own buckets.
        let written = (0..<30).count(where: { limit.take("new \($0)", now: 6_000) })
        #expect(written == 30)
    }

    @Test("sources beyond the table share one bucket, and the reports of one turn are bounded")
    func manySources() {
        var limit = LineLimit(source: Self.few, total: LineLimit.Rate(burst: 1 << 20, perSecond: 1), now: 0)
        for index in 0..<LineLimit.maxSources {
            for _ in 0..<5 { _ = limit.take("\(index)", now: 0) }
        }
        let written = (0..<50).count(where: { limit.take("further \($0)", now: 0) })
        #expect(written == 3)
        let reports = limit.leftOut(now: 5_000)
        #expect(reports.count == LineLimit.maxReports + 1)
        #expect(reports.last?.source == nil)
        #expect(reports.reduce(0) { $0 + $1.count } == LineLimit.maxSources * 2 + 47)
    }

    @Test("new rates apply at once, and lines suppressed before are still reported")
    func change() {
        var limit = LineLimit(source: Self.few, total: Self.many, now: 0)
        func write(_ count: Int) -> Int { (0..<count).count { _ in limit.take("a", now: 0) } }
        let few = write(10)
        limit.change(source: LineLimit.Rate(burst: 20, perSecond: 1), total: Self.many, now: 0)
        #expect(write(30) == 20)
        #expect(limit.leftOut(now: 5_000).first?.count == 10 - few + 10)
    }
}
