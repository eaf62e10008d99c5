/// Limits the log lines that others can cause in any number, by a token bucket for each source and one for all sources.
///
/// Omitted lines are counted by source. ``leftOut(now:)`` reports the counts about every ten seconds while a flood goes
/// on, and when it has ended.
package struct LineLimit: Sendable {
    /// Lines: at once, and per second after that.
    package struct Rate: Sendable {
        package let burst: Int
        package let perSecond: Int

        package init(burst: Int, perSecond: Int) {
            self.burst = burst
            self.perSecond = perSecond
        }
    }

    /// Lines that were left out since the last report.
    package struct LeftOut: Equatable, Sendable {
        /// Nil for all sources that do not have a count of their own.
        package let source: String?
        package let count: Int
    }

    private struct Flood {
        var bucket: TokenBucket
        var leftOut = 0
        /// When the first line of `leftOut` was left out.
        var since: Milliseconds = 0
        var last: Milliseconds = 0

        mutating func take(_ total: inout TokenBucket, now: Milliseconds) -> Bool {
            self.last = now
            // The source's own bucket first: a flood does not use up what is there for all.
            if self.bucket.take(now: now), total.take(now: now) { return true }
            if self.leftOut == 0 { self.since = now }
            self.leftOut += 1
            return false
        }
    }

    /// Sources with a bucket of their own. At about 150 bytes each they take 150 KB.
    package static let maxSources = 1_024
    /// Reports of one call of ``leftOut(now:)``. What is left out of a flood from many sources is one more.
    package static let maxReports = 8
    private static let reportAfter: Milliseconds = 10_000
    private static let forgetAfter: Milliseconds = 1_000
    /// This much silence ends a flood.
    private static let endAfter: Milliseconds = 2_000

    private var rate: Rate
    private var total: TokenBucket
    private var sources: [String: Flood] = [:]
    /// When the table was last looked through.
    private var forgotAt: Milliseconds = 0
    /// Lines of sources that found no room in the table.
    private var others: Flood

    package init(source rate: Rate, total: Rate, now: Milliseconds) {
        self.rate = rate
        self.total = TokenBucket(burst: total.burst, perSecond: total.perSecond, now: now)
        self.others = Flood(bucket: TokenBucket(burst: rate.burst, perSecond: rate.perSecond, now: now))
    }

    /// Applies other rates, as if no line had been written. What was left out is still reported.
    package mutating func change(source rate: Rate, total: Rate, now: Milliseconds) {
        self.rate = rate
        self.total = TokenBucket(burst: total.burst, perSecond: total.perSecond, now: now)
        let bucket = TokenBucket(burst: rate.burst, perSecond: rate.perSecond, now: now)
        for source in self.sources.keys { self.sources[source]?.bucket = bucket }
        self.others.bucket = bucket
    }

    /// Whether a line may be written; one that may not is counted.
    package mutating func take(_ source: String, now: Milliseconds) -> Bool {
        if var flood = self.sources[source] {
            defer { self.sources[source] = flood }
            return flood.take(&self.total, now: now)
        }
        guard self.makeRoom(now: now) else { return self.others.take(&self.total, now: now) }
        var flood = Flood(
            bucket: TokenBucket(burst: self.rate.burst, perSecond: self.rate.perSecond, now: now), last: now)
        defer { self.sources[source] = flood }
        return flood.take(&self.total, now: now)
    }

    /// False when every source in the table was heard of a moment ago.
    private mutating func makeRoom(now: Milliseconds) -> Bool {
        if self.sources.count < Self.maxSources { return true }
        // A full table is looked through once a second, not for each line.
        guard now - self.forgotAt >= Self.forgetAfter else { return false }
        self.forgetQuiet(now: now)
        return self.sources.count < Self.maxSources
    }

    /// Forgets sources whose bucket is full again, and of which nothing is to be reported.
    private mutating func forgetQuiet(now: Milliseconds) {
        self.forgotAt = now
        let refill = Milliseconds(self.rate.burst) * 1_000 / Milliseconds(max(self.rate.perSecond, 1))
        self.sources = self.sources.filter { $0.value.leftOut > 0 || now - $0.value.last < refill }
    }

    /// What is to be reported now; call it about once a second.
    package mutating func leftOut(now: Milliseconds) -> [LeftOut] {
        let due = self.sources.filter { Self.isDue($0.value, now: now) }.keys.sorted()
        var reports: [LeftOut] = []
        var rest = Self.isDue(self.others, now: now) ? self.others.leftOut : 0
        if rest > 0 { self.others.leftOut = 0 }
        for source in due {
            let count = self.sources[source]?.leftOut ?? 0
            self.sources[source]?.leftOut = 0
            if reports.count < Self.maxReports {
                reports.append(LeftOut(source: source, count: count))
            } else {
                rest += count
            }
        }
        if rest > 0 { reports.append(LeftOut(source: nil, count: rest)) }
        self.forgetQuiet(now: now)
        return reports
    }

    private static func isDue(_ flood: Flood, now: Milliseconds) -> Bool {
        flood.leftOut > 0 && (now - flood.since >= Self.reportAfter || now - flood.last >= Self.endAfter)
    }
}
