/// A first-in, first-out queue.
package struct Ring<Element> {
    private var elements: [Element] = []
    private var head = 0

    package init() {}

    package var isEmpty: Bool { self.head == self.elements.count }

    package var count: Int { self.elements.count - self.head }

    package var first: Element? { self.isEmpty ? nil : self.elements[self.head] }

    package mutating func append(_ element: Element) { self.elements.append(element) }

    package mutating func popFirst() -> Element? {
        guard self.head < self.elements.count else { return nil }
        let element = self.elements[self.head]
        self.head += 1
        if self.head == self.elements.count {
            self.elements.removeAll(keepingCapacity: true)
            self.head = 0
        } else if self.head >= 64, self.head * 2 >= self.elements.count {
            self.elements.removeSubrange(0..<self.head)
            self.head = 0
        }
        return element
    }
}
