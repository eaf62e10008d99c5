/// Rate limit for log lines that peers can trigger: a token bucket per source, and one shared by all sources.
///
/// Omitted lines are counted per source. ``leftOut(now:)`` reports the counts about every ten seconds during a flood,
/// and when the flood ends.
package struct LineLimit: Sendable {
    /// Lines allowed at once, and lines per second after that.
    package struct Rate: Sendable {
        package let burst: Int
        package let perSecond: Int

        package init(burst: Int, perSecond: Int) {
            self.burst = burst
            self.perSecond = perSecond
        }
    }

    /// The number of lines omitted since the last report.
    package struct LeftOut: Equatable, Sendable {
        /// Nil for the sum over all sources that are not reported individually.
        package let source: String?
        package let count: Int
    }

    private struct Flood {
        var bucket: TokenBucket
        var leftOut = 0
        /// When the first line counted in `leftOut` was omitted.
        var since: Milliseconds = 0
        var last: Milliseconds = 0

        mutating func take(_ total: inout TokenBucket, now: Milliseconds) -> Bool {
            self.last = now
            // The source's own bucket comes first: a flood from one source must not drain the shared bucket.
            if self.bucket.take(now: now), total.take(now: now) { return true }
            if self.leftOut == 0 { self.since = now }
            self.leftOut += 1
            return false
        }
    }

    /// Maximum number of sources with their own bucket. At about 150 bytes each they take 150 KB.
    package static let maxSources = 1_024
    /// Maximum number of per-source reports from one call of ``leftOut(now:)``. The remaining sources share one more.
    package static let maxReports = 8
    private static let reportAfter: Milliseconds = 10_000
    private static let forgetAfter: Milliseconds = 1_000
    /// This much silence ends a flood.
    private static let endAfter: Milliseconds = 2_000

    private var rate: Rate
    private var total: TokenBucket
    private var sources: [String: Flood] = [:]
    /// When quiet sources were last removed from the table.
    private var forgotAt: Milliseconds = 0
    /// The shared bucket and count of the sources that do not fit in the table.
    private var others: Flood

    package init(source rate: Rate, total: Rate, now: Milliseconds) {
        self.rate = rate
        self.total = TokenBucket(burst: total.burst, perSecond: total.perSecond, now: now)
        self.others = Flood(bucket: TokenBucket(burst: rate.burst, perSecond: rate.perSecond, now: now))
    }

    /// Changes the rates and refills all buckets. Omitted lines that were not reported yet still are.
    package mutating func change(source rate: Rate, total: Rate, now: Milliseconds) {
        self.rate = rate
        self.total = TokenBucket(burst: total.burst, perSecond: total.perSecond, now: now)
        let bucket = TokenBucket(burst: rate.burst, perSecond: rate.perSecond, now: now)
        for source in self.sources.keys { self.sources[source]?.bucket = bucket }
        self.others.bucket = bucket
    }

    /// Returns whether a line may be written. If not, the line is counted as omitted.
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

    /// Returns false if the table is full and no source can be removed now.
    private mutating func makeRoom(now: Milliseconds) -> Bool {
        if self.sources.count < Self.maxSources { return true }
        // Scanning the full table for each line would be too slow; once a second is enough.
        guard now - self.forgotAt >= Self.forgetAfter else { return false }
        self.forgetQuiet(now: now)
        return self.sources.count < Self.maxSources
    }

    /// Removes sources whose bucket has refilled and that have nothing to report.
    private mutating func forgetQuiet(now: Milliseconds) {
        self.forgotAt = now
        let refill = Milliseconds(self.rate.burst) * 1_000 / Milliseconds(max(self.rate.perSecond, 1))
        self.sources = self.sources.filter { $0.value.leftOut > 0 || now - $0.value.last < refill }
    }

    /// Returns the counts that are due, and resets them. Call it about once a second.
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
