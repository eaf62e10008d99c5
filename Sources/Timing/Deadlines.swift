/// Deadlines by key, earliest first, in a binary heap. Operations take O(log n) amortised time.
package struct Deadlines<Key: Hashable & Sendable>: Sendable {
    private struct Entry: Sendable {
        let time: Milliseconds
        let key: Key
    }

    private var times: [Key: Milliseconds] = [:]
    /// May hold outdated entries, whose deadline was changed or removed. They are dropped when they reach the top.
    private var heap: [Entry] = []

    package init() {}

    package subscript(key: Key) -> Milliseconds? { self.times[key] }

    /// Sets or replaces the deadline of a key.
    package mutating func set(_ key: Key, at time: Milliseconds) {
        guard self.times.updateValue(time, forKey: key) != time else { return }
        self.heap.append(Entry(time: time, key: key))
        self.rise(from: self.heap.count - 1)
        self.dropOutdated()
    }

    package mutating func remove(_ key: Key) {
        guard self.times.removeValue(forKey: key) != nil else { return }
        self.dropOutdated()
    }

    package mutating func removeAll() { self = Deadlines() }

    /// The earliest deadline; nil without one.
    package var next: Milliseconds? { self.heap.first?.time }

    /// Removes and returns the key with the earliest deadline, if that has been reached. Call it until it returns nil.
    package mutating func popDue(now: Milliseconds) -> Key? {
        guard let first = self.heap.first, first.time <= now else { return nil }
        self.times[first.key] = nil
        self.dropOutdated()
        return first.key
    }

    /// Ensures that the first entry is current, and rebuilds the heap when most of its entries are outdated.
    private mutating func dropOutdated() {
        if self.heap.count > 2 * self.times.count + 16 {
            self.heap = self.times.map { Entry(time: $0.value, key: $0.key) }.sorted { $0.time < $1.time }
        }
        while let first = self.heap.first, self.times[first.key] != first.time {
            self.heap[0] = self.heap[self.heap.count - 1]
            self.heap.removeLast()
            self.sink(from: 0)
        }
    }

    private mutating func rise(from start: Int) {
        var index = start
        while index > 0, self.heap[index].time < self.heap[(index - 1) / 2].time {
            self.heap.swapAt(index, (index - 1) / 2)
            index = (index - 1) / 2
        }
    }

    private mutating func sink(from start: Int) {
        var index = start
        while true {
            let children = (2 * index + 1)..<min(2 * index + 3, max(self.heap.count, 2 * index + 1))
            guard let child = children.min(by: { self.heap[$0].time < self.heap[$1].time }),
                self.heap[child].time < self.heap[index].time
            else { return }
            self.heap.swapAt(index, child)
            index = child
        }
    }
}
