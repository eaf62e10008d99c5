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

    /// Takes one token; false when none is left.
    package mutating func take(now: Milliseconds) -> Bool {
        if now > self.refilled {
            // A span of a day fills any bucket; the cap keeps the product far from overflow.
            let span = min(now - self.refilled, 86_400_000)
            self.level = min(self.burst, self.level + span * self.perSecond)
            self.refilled = now
        }
        guard self.level >= 1_000 else { return false }
        self.level -= 1_000
        return true
    }
}
