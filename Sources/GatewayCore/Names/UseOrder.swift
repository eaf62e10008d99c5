/// Elements in the order of their last use. Each operation costs the same however many there are.
struct UseOrder<Element: Hashable & Sendable>: Equatable, Sendable {
    private struct Neighbours: Equatable, Sendable {
        var older: Element?
        var newer: Element?
    }

    private var neighbours: [Element: Neighbours] = [:]
    private var oldest: Element?
    private var newest: Element?

    var count: Int { self.neighbours.count }

    /// Makes an element the newest, whether it was here before or not.
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

    /// The oldest when there are more than `atMost`.
    func oldest(above atMost: Int) -> Element? { self.count > atMost ? self.oldest : nil }

    /// All of them, the oldest first.
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
