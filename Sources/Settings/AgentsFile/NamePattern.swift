package import Wire

/// A pattern for the names that an agent may use: a name in which `*` matches any run of characters, including none.
///
/// It is matched against valid ``Name``s only.
package struct NamePattern: Hashable, Sendable, CustomStringConvertible {
    private static let maxStars = 4
    /// The pattern in lower case.
    package let text: String
    private let bytes: [UInt8]
    private static let star = UInt8(ascii: "*")

    /// The rule, for error texts.
    package static let rule = "use a name in which up to four '*' match any characters"

    /// Nil if no name can match, or if the text has a character that is neither `*` nor allowed in names.
    package init?(_ text: String) {
        let bytes = text.utf8.map { (0x41...0x5A).contains($0) ? $0 + 0x20 : $0 }
        guard (1...63).contains(bytes.count), !bytes.contains(where: { !Self.isAllowed($0) }),
            bytes.count(where: { $0 == Self.star }) <= Self.maxStars
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

    /// The literal text at the beginning of all matching names.
    var literalPrefix: ArraySlice<UInt8> { self.bytes.prefix { $0 != Self.star } }

    /// The literal text at the end of all matching names.
    var literalSuffix: ArraySlice<UInt8> {
        self.bytes[(self.bytes.lastIndex(of: Self.star).map { $0 + 1 } ?? self.bytes.startIndex)...]
    }

    package func matches(_ name: Name) -> Bool {
        self.matches(Array(name.text.utf8))
    }

    /// Whether some text matches both.
    package func overlaps(_ other: NamePattern) -> Bool {
        if !self.bytes.contains(Self.star) { return other.matches(self.bytes) }
        if !other.bytes.contains(Self.star) { return self.matches(other.bytes) }
        // Both have stars, so a common text can contain both middle parts in sequence: only the ends can conflict.
        return zip(self.literalPrefix, other.literalPrefix).allSatisfy { $0 == $1 }
            && zip(self.literalSuffix.reversed(), other.literalSuffix.reversed()).allSatisfy { $0 == $1 }
    }

    /// Backtracks to the last star only: an earlier star cannot match more than the last one can.
    private func matches(_ text: [UInt8]) -> Bool {
        var (position, place) = (0, 0)
        var retry: (position: Int, place: Int)?
        while place < text.count {
            if position < self.bytes.count, self.bytes[position] == Self.star {
                retry = (position + 1, place)
                position += 1
            } else if position < self.bytes.count, self.bytes[position] == text[place] {
                position += 1
                place += 1
            } else if let last = retry {
                retry = (last.position, last.place + 1)
                (position, place) = (last.position, last.place + 1)
            } else {
                return false
            }
        }
        return self.bytes[position...].allSatisfy { $0 == Self.star }
    }
}
