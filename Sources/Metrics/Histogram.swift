/// How observed values are spread over fixed buckets. Observing allocates nothing.
package struct Histogram: Sendable {
    /// The upper ends of the buckets, which belong to them, in ascending order; one without end follows.
    package let bounds: [Double]
    /// How many values each bucket has, the one without end last.
    package private(set) var counts: [UInt64]
    package private(set) var sum = 0.0

    package init(bounds: [Double]) {
        precondition(
            zip(bounds, bounds.dropFirst()).allSatisfy { $0 < $1 } && bounds.allSatisfy(\.isFinite),
            "bounds ascend and are finite")
        self.bounds = bounds
        self.counts = [UInt64](repeating: 0, count: bounds.count + 1)
    }

    package var count: UInt64 { self.counts.reduce(0, &+) }

    package mutating func observe(_ value: Double) {
        // A dozen comparisons cost less than a clever search.
        var index = 0
        while index < self.bounds.count, !(value <= self.bounds[index]) { index += 1 }
        self.counts[index] &+= 1
        self.sum += value
    }

    /// A span, in seconds.
    package mutating func observe(nanoseconds: UInt64) { self.observe(Double(nanoseconds) / 1e9) }
}
