/// Elements ordered by last use: a hash map with a linked list through it, so `use` and `remove` take constant time.
struct UseOrder<Element: Hashable & Sendable>: Equatable, Sendable {
    private struct Neighbours: Equatable, Sendable {
        var older: Element?
        var newer: Element?
    }

    private var neighbours: [Element: Neighbours] = [:]
    private var oldest: Element?
    private var newest: Element?

    var count: Int { self.neighbours.count }

    /// Makes an element the most recently used; inserts it if it is new.
    mutating func use(_ element: Element) {
        guard self.newest != element else { return }
        self.remove(element)
        if let newest = self.newest { self.neighbours[newest]?.newer = element }
        self.neighbours[element] = Neighbours(older: self.newest, newer: nil)
        self.newest = element
        if self.oldest == nil { self.oldest = element }
    }

    mutating func remove(_ element: Element) {
        guard let own = self.neighbours.removeValue(forKey: element) else { return }
        if let older = own.older { self.neighbours[older]?.newer = own.newer } else { self.oldest = own.newer }
        if let newer = own.newer { self.neighbours[newer]?.older = own.older } else { self.newest = own.older }
    }

    /// The least recently used element if there are more than `atMost`, otherwise nil.
    func oldest(above atMost: Int) -> Element? { self.count > atMost ? self.oldest : nil }

    /// All elements, least recently used first.
    var elements: [Element] {
        var all: [Element] = []
        all.reserveCapacity(self.count)
        var next = self.oldest
        while let element = next {
            all.append(element)
            next = self.neighbours[element]?.newer
        }
        return all
    }
}
