/// A queue that serves its owners round robin: an owner with many elements delays its own, not those of others.
///
/// It can be bounded per owner and in total. An owner at its limit loses its oldest element, which has waited longest
/// and is nearest to its deadline. When the whole queue is full, the owner with the most elements loses its oldest one.
package struct TurnQueue<Owner: Hashable, Element: AnyObject> {
    private let maxWaiting: Int
    private let maxPerOwner: Int
    private var elements: [Owner: [Element]] = [:]
    /// Owners with elements; the next to be served is first.
    private var turns: [Owner] = []
    package private(set) var count = 0

    package init(atMost: Int = .max, maxPerOwner: Int = .max) {
        self.maxWaiting = atMost
        self.maxPerOwner = maxPerOwner
    }

    package var isEmpty: Bool { self.count == 0 }

    /// - Returns: the element that was dropped to make room, if any. An unbounded queue never drops one.
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

    /// Removes the oldest element of the next owner that satisfies `mayHaveTurn`; the owner then goes to the end.
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

    /// - Returns: the removed elements; those of one owner are in the order in which they were added.
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
