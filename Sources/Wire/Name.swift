/// A name that an agent may register: `[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?`, one DNS label (RFC 1035, 2.3.1, with the
/// leading digit of RFC 1123, 2.1), and no `--` at positions 3–4, which DNS keeps for itself (RFC 5891, 4.2.3.1).
package struct Name: Hashable, Sendable, CustomStringConvertible {
    /// The name in lower case.
    package let text: String

    /// Names that would mislead people or clash with the gateway's own pages.
    package static let reserved: Set<String> = ["localhost", "diglett", "gateway", "admin", "metrics", "status"]

    /// The rule in words, for error texts.
    package static let rule =
        "a name has 1 to 63 letters a-z, digits and inner hyphens, no hyphens at places 3 and 4, and is not reserved"

    /// Nil when `text` breaks the rule; upper-case ASCII letters are taken as lower-case.
    package init?(_ text: String) {
        guard let canonical = Self.canonical(text), !Self.reserved.contains(canonical) else { return nil }
        self.text = canonical
    }

    package var description: String { self.text }

    private static func canonical(_ text: String) -> String? {
        let bytes = text.utf8.map { (0x41...0x5A).contains($0) ? $0 + 0x20 : $0 }
        guard (1...63).contains(bytes.count) else { return nil }
        let hyphen: UInt8 = 0x2D
        let allowed = bytes.allSatisfy {
            (0x61...0x7A).contains($0) || (0x30...0x39).contains($0) || $0 == hyphen
        }
        guard allowed, bytes.first != hyphen, bytes.last != hyphen else { return nil }
        if bytes.count >= 4, bytes[2] == hyphen, bytes[3] == hyphen { return nil }
        return String(decoding: bytes, as: UTF8.self)
    }
}
