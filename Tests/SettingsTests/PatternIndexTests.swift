import TestSupport
import Testing

@testable import Settings

@Suite("Pattern index")
struct PatternIndexTests {
    /// Whether some text matches the rest of both patterns. Slow, but simple enough to serve as the reference.
    private func meet(_ one: ArraySlice<UInt8>, _ other: ArraySlice<UInt8>) -> Bool {
        let star = UInt8(ascii: "*")
        guard let a = one.first else { return other.allSatisfy { $0 == star } }
        guard let b = other.first else { return one.allSatisfy { $0 == star } }
        if a == star { return meet(one.dropFirst(), other) || meet(one, other.dropFirst()) }
        if b == star { return meet(one, other.dropFirst()) || meet(one.dropFirst(), other) }
        return a == b && meet(one.dropFirst(), other.dropFirst())
    }

    @Test("finds an overlap exactly when comparing all pairs finds one", arguments: 1...20)
    func random(_ seed: UInt64) throws {
        var generator = SeededGenerator(seed: seed)
        for _ in 0..<40 {
            var index = PatternIndex()
            var former: [NamePattern] = []
            for number in 0..<12 {
                let length = Int.random(in: 1...6, using: &generator)
                let text = String((0..<length).map { _ in "aab*".randomElement(using: &generator) ?? "a" })
                guard let pattern = NamePattern(text) else { continue }
                let meeting = former.filter { self.meet(Array($0.text.utf8)[...], Array(text.utf8)[...]) }
                for other in former {
                    #expect(pattern.overlaps(other) == meeting.contains(other), "seed \(seed): \(pattern) \(other)")
                }
                let found = index.overlap(with: pattern)
                #expect((found != nil) == !meeting.isEmpty, "seed \(seed): \(pattern) among \(former)")
                if let found { #expect(meeting.contains(found.0), "seed \(seed): \(pattern) and \(found.0)") }
                index.insert(pattern, of: number)
                former.append(pattern)
            }
        }
    }
}
