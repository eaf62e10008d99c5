package import Wire

/// Which names an agent may use: a name, with `*` for any run of characters, also none.
///
/// What it matches is always a valid ``Name``; the pattern only says which of them.
package struct NamePattern: Hashable, Sendable, CustomStringConvertible {
    private static let mostStars = 4
    /// The pattern in lower case.
    package let text: String
    private let bytes: [UInt8]
    private static let star = UInt8(ascii: "*")

    /// The rule in words, for error texts.
    package static let rule = "a pattern is a name, in which up to four '*' stand for any characters"

    /// Nil when no name could match, or the text has other characters than names and `*`.
    package init?(_ text: String) {
        let bytes = text.utf8.map { (0x41...0x5A).contains($0) ? $0 + 0x20 : $0 }
        guard (1...63).contains(bytes.count), !bytes.contains(where: { !Self.isAllowed($0) }),
            bytes.count(where: { $0 == Self.star }) <= Self.mostStars
        else { return nil }
        if !bytes.contains(Self.star) {
            guard Name(text) != nil else { return nil }
        } else {
            // No name begins or ends with a hyphen.
            guard bytes.first != 0x2D, bytes.last != 0x2D else { return nil }
        }
        self.bytes = bytes
        self.text = String(decoding: bytes, as: UTF8.self)
    }

    private static func isAllowed(_ byte: UInt8) -> Bool {
        (0x61...0x7A).contains(byte) || (0x30...0x39).contains(byte) || byte == 0x2D || byte == self.star
    }

    package var description: String { self.text }

    /// What all matching names begin with.
    var literalPrefix: Substring { self.text.prefix { $0 != "*" } }

    package func matches(_ name: Name) -> Bool {
        Self.meet(self.bytes[...], Array(name.text.utf8)[...])
    }

    /// Whether some text matches both.
    package func overlaps(_ other: NamePattern) -> Bool {
        // Most that do not meet differ in their last characters.
        for (a, b) in zip(self.bytes.reversed(), other.bytes.reversed()) {
            if a == Self.star || b == Self.star { break }
            if a != b { return false }
        }
        return Self.meet(self.bytes[...], other.bytes[...])
    }

    /// Whether a text matches both patterns. Row by row: `reached[j]` says whether the first i and j characters can
    /// stand for the same text.
    private static func meet(_ left: ArraySlice<UInt8>, _ right: ArraySlice<UInt8>) -> Bool {
        let left = Array(left)
        let right = Array(right)
        var reached = [Bool](repeating: false, count: right.count + 1)
        for i in 0...left.count {
            var next = [Bool](repeating: false, count: right.count + 1)
            for j in 0...right.count {
                let a = i > 0 ? left[i - 1] : nil
                let b = j > 0 ? right[j - 1] : nil
                let hasStar = a == self.star || b == self.star
                next[j] =
                    (i == 0 && j == 0) || (i > 0 && hasStar && reached[j]) || (j > 0 && hasStar && next[j - 1])
                    || (i > 0 && j > 0 && a == b && reached[j - 1])
            }
            reached = next
        }
        return reached[right.count]
    }
}
