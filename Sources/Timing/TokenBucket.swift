/// A bucket of tokens that refills with time.
package struct TokenBucket: Sendable {
    private let burst: UInt64
    private let perSecond: UInt64
    /// In thousandths of a token, so that a refill of less than one is not lost.
    private var level: UInt64
    private var refilled: Milliseconds

    package init(burst: Int, perSecond: Int, now: Milliseconds) {
        self.burst = UInt64(max(burst, 0)) * 1_000
        self.perSecond = UInt64(max(perSecond, 0))
        self.level = self.burst
        self.refilled = now
    }

    private func level(now: Milliseconds) -> UInt64 {
        // A span of a day fills any bucket; the cap keeps the product far from overflow.
        let span = now > self.refilled ? min(now - self.refilled, 86_400_000) : 0
        return min(self.burst, self.level + span * self.perSecond)
    }

    /// Tokens that could be taken now.
    package func tokens(now: Milliseconds) -> Int { Int(self.level(now: now) / 1_000) }

    /// Whether it is as full as a new one.
    package func isFull(now: Milliseconds) -> Bool { self.level(now: now) == self.burst }

    /// When the next token is available; nil if the bucket never refills.
    package var nextToken: Milliseconds? {
        if self.level >= 1_000 { return self.refilled }
        guard self.perSecond > 0, self.burst >= 1_000 else { return nil }
        return self.refilled + (1_000 - self.level + self.perSecond - 1) / self.perSecond
    }

    /// Takes one token; false when none is left.
    package mutating func take(now: Milliseconds) -> Bool {
        self.level = self.level(now: now)
        self.refilled = max(self.refilled, now)
        guard self.level >= 1_000 else { return false }
        self.level -= 1_000
        return true
    }
}
