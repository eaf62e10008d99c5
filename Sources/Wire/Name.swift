/// A name that an agent may register: `[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?`.
///
/// It is one DNS label (RFC 1035, 2.3.1) and may begin with a digit (RFC 1123, 2.1). It has no `--` at positions 3–4,
/// which DNS reserves (RFC 5891, 4.2.3.1).
package struct Name: Hashable, Sendable, CustomStringConvertible {
    /// The name in lower case.
    package let text: String

    /// Names that could mislead people or clash with the gateway's own pages.
    package static let reserved: Set<String> = ["localhost", "diglett", "gateway", "admin", "metrics", "status"]

    /// The rule in words.
    package static let rule =
        "a name has 1 to 63 letters a-z, digits and hyphens; it does not begin or end with a hyphen, has no two hyphens "
        + "at positions 3 and 4, and is not reserved"

    /// The reason why a text is not a name, and a name that is close to it.
    package static func fault(of text: String) -> String {
        let shown = PeerText.escaped(text, atMost: 64)
        let text = self.lowercased(text)
        let length = text.unicodeScalars.count
        if text.isEmpty { return "the name is empty" }
        if self.reserved.contains(text) { return "the name '\(shown)' is reserved, choose another" }
        let fault: String
        if text.contains(".") {
            let label = text.split(separator: ".").first.map(String.init) ?? ""
            let advice = Name(label) == nil ? "" : "; try '\(label)'"
            return "'\(shown)' is not a valid name: dots are not allowed\(advice)"
        } else if let other = text.unicodeScalars.first(where: { !self.isAllowed($0) }) {
            fault = "'\(PeerText.escaped(String(other)))' is not allowed, only a-z, 0-9 and hyphens"
        } else if length > 63 {
            fault = "it has \(length) characters, 63 at most are allowed"
        } else if text.hasPrefix("-") || text.hasSuffix("-") {
            fault = "it must not begin or end with a hyphen"
        } else {
            fault = "two hyphens at positions 3 and 4 are reserved by DNS"
        }
        let near = self.near(text)
        return "'\(shown)' is not a valid name: \(fault)" + (near.map { "; try '\($0)'" } ?? "")
    }

    /// Only ASCII letters: others must not become allowed ones.
    private static func lowercased(_ text: String) -> String {
        String(decoding: text.utf8.map { (0x41...0x5A).contains($0) ? $0 + 0x20 : $0 }, as: UTF8.self)
    }

    private static func isAllowed(_ scalar: Unicode.Scalar) -> Bool {
        ("a"..."z").contains(scalar) || ("0"..."9").contains(scalar) || scalar == "-"
    }

    /// The name with hyphens for what is not allowed; nil if that is not a name either.
    private static func near(_ text: String) -> Name? {
        let words = text.unicodeScalars.split { !self.isAllowed($0) || $0 == "-" }.map(String.init)
        return Name(words.joined(separator: "-"))
    }

    /// Returns nil if `text` breaks the rule or is reserved. Upper-case ASCII letters become lower case.
    package init?(_ text: String) {
        guard let canonical = Self.canonical(text), !Self.reserved.contains(canonical) else { return nil }
        self.text = canonical
    }

    package var description: String { self.text }

    private static func canonical(_ text: String) -> String? {
        let text = self.lowercased(text)
        let scalars = text.unicodeScalars
        guard (1...63).contains(scalars.count), scalars.allSatisfy(self.isAllowed), !text.hasPrefix("-"),
            !text.hasSuffix("-"), !scalars.dropFirst(2).starts(with: "--".unicodeScalars)
        else { return nil }
        return text
    }
}
