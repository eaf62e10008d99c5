internal import Suggestions
internal import Wire

/// The meaning of a code, for people, and what to do about it.
package struct Explanation: Equatable, Sendable {
    /// Numbers and names are unique within a kind only.
    package enum Kind: CaseIterable, Sendable {
        case agentExit
        case gatewayExit
        /// A code of the link protocol, in logs and events.
        case link
    }

    package let kind: Kind
    package let number: Int
    /// A short name that does not change between versions.
    package let slug: String
    /// Part of a sentence: `another agent holds the name`.
    package let meaning: String
    /// Where users see it.
    package let place: String
    /// What to do, in full sentences.
    package let advice: String

    /// For a link code, the exit code with which it ends an agent. For an agent's exit code, the link codes behind it.
    package var related: [Explanation] {
        Explanations.all.filter { other in
            switch (self.kind, other.kind) {
            case (.link, .agentExit): Explanations.ends(self, other)
            case (.agentExit, .link): Explanations.ends(other, self)
            default: false
            }
        }
    }
}

/// All explanations, and functions to find them.
package enum Explanations {
    package static let all = Self.agentExits + Self.gatewayExits + Self.linkCodes

    /// The codes that a query may mean: a number, a name in any case, or `code-99`, the form in which logs show an
    /// unknown link code.
    package static func find(_ query: String) -> [Explanation] {
        let query = query.lowercased()
        if let number = Int(query) { return self.all.filter { $0.number == number } }
        let unknown = "code-"
        if query.hasPrefix(unknown), let number = UInt16(query.dropFirst(unknown.count)) {
            let known = self.all.filter { $0.kind == .link && $0.number == Int(number) }
            return known.isEmpty ? [self.unknown(number)] : known
        }
        return self.all.filter { $0.slug == query }
    }

    /// The error for an unknown code: lists similar codes, or all.
    package static func refusal(of query: String) -> String {
        let query = query.lowercased()
        let shown = PeerText.escaped(query, atMost: 40)
        if let number = Int(query) {
            guard (129...192).contains(number) else { return "unknown code \(shown)\(self.listing)" }
            return "unknown code \(number): a shell reports it for a program that signal \(number - 128) ended"
        }
        let slugs = Set(self.all.map(\.slug))
        let words = Suggestion.near(query, among: slugs)
        let parts = query.utf8.count < 3 ? [] : slugs.filter { $0.contains(query) || query.contains($0) }.sorted()
        guard let first = words.first ?? parts.first else { return "unknown code '\(shown)'\(self.listing)" }
        return "unknown code '\(shown)'; did you mean '\(first)'?"
    }

    private static let listing = ": 'diglett explain' and 'diglett-server explain' list all codes"
}
