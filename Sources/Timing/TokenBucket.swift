/// A token bucket for rate limiting. A new bucket is full.
package struct TokenBucket: Sendable {
    private let burst: UInt64
    private let perSecond: UInt64
    /// In thousandths of a token, so that refills of less than one token are not lost.
    private var level: UInt64
    private var refilled: Milliseconds

    package init(burst: Int, perSecond: Int, now: Milliseconds) {
        self.burst = UInt64(max(burst, 0)) * 1_000
        self.perSecond = UInt64(max(perSecond, 0))
        self.level = self.burst
        self.refilled = now
    }

    private func level(now: Milliseconds) -> UInt64 {
        // Capping the span at a day, which fills any bucket, avoids overflow.
        let span = now > self.refilled ? min(now - self.refilled, 86_400_000) : 0
        return min(self.burst, self.level + span * self.perSecond)
    }

    /// Whole tokens available now.
    package func tokens(now: Milliseconds) -> Int { Int(self.level(now: now) / 1_000) }

    /// Whether the bucket has refilled completely.
    package func isFull(now: Milliseconds) -> Bool { self.level(now: now) == self.burst }

    /// When the next token is available, possibly in the past; nil if the bucket never refills.
    package var nextToken: Milliseconds? {
        if self.level >= 1_000 { return self.refilled }
        guard self.perSecond > 0, self.burst >= 1_000 else { return nil }
        return self.refilled + (1_000 - self.level + self.perSecond - 1) / self.perSecond
    }

    /// Takes one token; returns false if none is left.
    package mutating func take(now: Milliseconds) -> Bool {
        self.level = self.level(now: now)
        self.refilled = max(self.refilled, now)
        guard self.level >= 1_000 else { return false }
        self.level -= 1_000
        return true
    }
}
