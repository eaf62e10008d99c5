/// Which lines of a log are written of those that others could cause without end.
package struct NoiseLimit {
    private var bucket: TokenBucket
    private var suppressed = 0

    package init(now: Milliseconds) { self.bucket = TokenBucket(burst: 20, perSecond: 5, now: now) }

    /// Whether a line may be written; those that may not are counted.
    package mutating func take(now: Milliseconds) -> Bool {
        if self.bucket.take(now: now) { return true }
        self.suppressed += 1
        return false
    }

    /// How many lines were left out since the last word of it; nil when there is none, or no room to say so.
    package mutating func leftOut(now: Milliseconds) -> Int? {
        guard self.suppressed > 0, self.bucket.take(now: now) else { return nil }
        defer { self.suppressed = 0 }
        return self.suppressed
    }
}
