/// A number of events. It never decreases.
package struct Counter: Equatable, Sendable {
    package private(set) var value: UInt64 = 0

    package init() {}

    package mutating func add(_ count: Int = 1) {
        precondition(count >= 0, "a counter never goes down")
        self.value &+= UInt64(count)
    }
}

/// One counter per key. The set of keys is fixed at init, so a peer cannot create new series.
package struct CounterTable<Key: Hashable & Sendable>: Sendable {
    private var indices: [Key: Int] = [:]
    private var counts: [(key: Key, count: Counter)] = []

    /// Every key starts at 0 instead of appearing with its first event, because `rate()` needs an earlier sample.
    ///
    /// - Parameter keys: in display order; duplicates are ignored.
    package init(_ keys: some Sequence<Key>) {
        for key in keys where self.indices[key] == nil {
            self.indices[key] = self.counts.count
            self.counts.append((key, Counter()))
        }
    }

    /// - Parameter other: the key to count if `key` is not in the table; it must be in the table itself.
    package mutating func add(_ key: Key, or other: @autoclosure () -> Key, count: Int = 1) {
        guard let index = self.indices[key] ?? self.indices[other()] else {
            preconditionFailure("the key for all others is one of the table's")
        }
        self.counts[index].count.add(count)
    }

    package var all: [(key: Key, count: Counter)] { self.counts }

    /// The count for a key; nil if the key is not in the table.
    package subscript(_ key: Key) -> UInt64? { self.indices[key].map { self.counts[$0].count.value } }
}

extension CounterTable where Key: CaseIterable {
    /// One counter per case.
    package init() { self.init(Key.allCases) }

    package mutating func add(_ key: Key, count: Int = 1) { self.add(key, or: key, count: count) }
}
