/// How often something has happened since the program began.
package struct Counter: Equatable, Sendable {
    package private(set) var value: UInt64 = 0

    package init() {}

    package mutating func add(_ count: Int = 1) {
        precondition(count >= 0, "a counter never goes down")
        self.value &+= UInt64(count)
    }
}

/// A counter for each of a fixed set of keys, so that no peer can make another series come into being.
package struct CounterTable<Key: Hashable & Sendable>: Sendable {
    private var indices: [Key: Int] = [:]
    private var counts: [(key: Key, count: Counter)] = []

    /// All keys are there from the beginning, with 0: a rate needs a value before the first event.
    ///
    /// - Parameter keys: in the order in which they are shown; one that comes twice is there once.
    package init(_ keys: some Sequence<Key>) {
        for key in keys where self.indices[key] == nil {
            self.indices[key] = self.counts.count
            self.counts.append((key, Counter()))
        }
    }

    /// - Parameter other: counted instead of a key that is not one of the table's.
    package mutating func add(_ key: Key, or other: @autoclosure () -> Key, count: Int = 1) {
        guard let index = self.indices[key] ?? self.indices[other()] else {
            preconditionFailure("the key for all others is one of the table's")
        }
        self.counts[index].count.add(count)
    }

    package var all: [(key: Key, count: Counter)] { self.counts }

    /// Nil when the key is not one of the table's.
    package subscript(_ key: Key) -> UInt64? { self.indices[key].map { self.counts[$0].count.value } }
}

extension CounterTable where Key: CaseIterable {
    /// A counter for each case.
    package init() { self.init(Key.allCases) }

    package mutating func add(_ key: Key, count: Int = 1) { self.add(key, or: key, count: count) }
}
