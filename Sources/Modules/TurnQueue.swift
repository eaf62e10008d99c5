/// A queue in which owners take turns: one that adds many elements waits behind its own, not in front of others.
///
/// It can be bounded for each owner and in all. An owner that is full loses its oldest element, which has waited longest
/// already and is the nearest to its deadline; a queue that is full takes from the owner that has most.
package struct TurnQueue<Owner: Hashable, Element: AnyObject> {
    private let maxWaiting: Int
    private let maxPerOwner: Int
    private var elements: [Owner: [Element]] = [:]
    /// Owners that have elements, the next one first.
    private var turns: [Owner] = []
    package private(set) var count = 0

    package init(atMost: Int = .max, maxPerOwner: Int = .max) {
        self.maxWaiting = atMost
        self.maxPerOwner = maxPerOwner
    }

    package var isEmpty: Bool { self.count == 0 }

    /// - Returns: the element that made room, if one had to; never one of an unbounded queue.
    package mutating func append(_ element: Element, of owner: Owner) -> Element? {
        var evicted: Element?
        let own = self.elements[owner]?.count ?? 0
        if own >= self.maxPerOwner {
            evicted = self.removeFirst(of: owner)
        } else if self.count >= self.maxWaiting {
            evicted = self.largest.flatMap { self.removeFirst(of: $0) }
        }
        if self.elements[owner] == nil { self.turns.append(owner) }
        self.elements[owner, default: []].append(element)
        self.count += 1
        return evicted
    }

    private var largest: Owner? { self.elements.max { $0.value.count < $1.value.count }?.key }

    private mutating func removeFirst(of owner: Owner) -> Element? {
        guard let first = self.elements[owner]?.removeFirst() else { return nil }
        self.removed(from: owner)
        return first
    }

    private mutating func removed(from owner: Owner) {
        self.count -= 1
        guard self.elements[owner]?.isEmpty ?? false else { return }
        self.elements[owner] = nil
        self.turns.removeAll { $0 == owner }
    }

    /// The oldest element of the owner whose turn it is, of those that may have one.
    package mutating func popFirst(where mayHaveTurn: (Owner) -> Bool = { _ in true }) -> Element? {
        guard let index = self.turns.firstIndex(where: mayHaveTurn) else { return nil }
        let owner = self.turns.remove(at: index)
        self.turns.append(owner)
        return self.removeFirst(of: owner)
    }

    package mutating func remove(_ element: Element, of owner: Owner) {
        guard let index = self.elements[owner]?.firstIndex(where: { $0 === element }) else { return }
        self.elements[owner]?.remove(at: index)
        self.removed(from: owner)
    }

    /// - Returns: the removed elements, each owner's in the order in which they came.
    package mutating func removeAll(where isRemoved: (Element) -> Bool) -> [Element] {
        let removed = self.turns.flatMap { self.elements[$0, default: []].filter(isRemoved) }
        guard !removed.isEmpty else { return [] }
        self.elements = self.elements.mapValues { $0.filter { !isRemoved($0) } }.filter { !$0.value.isEmpty }
        self.turns.removeAll { self.elements[$0] == nil }
        self.count -= removed.count
        return removed
    }

    package func forEach(_ body: (Element) -> Void) {
        for element in self.elements.values.joined() { body(element) }
    }

    package mutating func removeAll() {
        self.elements = [:]
        self.turns = []
        self.count = 0
    }
}
