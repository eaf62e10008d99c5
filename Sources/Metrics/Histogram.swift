/// Counts of observed values in fixed buckets. `observe` does not allocate.
package struct Histogram: Sendable {
    /// Inclusive upper bounds of the buckets, ascending and finite. The last bucket is unbounded and not listed.
    package let bounds: [Double]
    /// Values per bucket (not cumulative), the unbounded one last.
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
        // With a dozen bounds a linear scan is faster than a binary search.
        var index = 0
        while index < self.bounds.count, !(value <= self.bounds[index]) { index += 1 }
        self.counts[index] &+= 1
        self.sum += value
    }

    /// Observes a duration, converted to seconds.
    package mutating func observe(nanoseconds: UInt64) { self.observe(Double(nanoseconds) / 1e9) }
}
