internal import Wire

/// What a code means to a person who meets it, and what to do about it.
package struct Explanation: Equatable, Sendable {
    /// Numbers and names are unique within a kind only.
    package enum Kind: CaseIterable, Sendable {
        case agentExit
        case gatewayExit
        /// Of the link protocol, in logs and events.
        case link
    }

    package let kind: Kind
    package let number: Int
    /// A short name that stays the same across versions.
    package let slug: String
    /// A part of a sentence: `another agent holds the name`.
    package let meaning: String
    /// Where one meets it.
    package let place: String
    /// What to do, in sentences.
    package let advice: String

    /// The exit code in which it ends an agent, or for an exit code those of the link that lead to it.
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

/// All explanations, and how they are found.
package enum Explanations {
    package static let all = Self.agentExits + Self.gatewayExits + Self.linkCodes

    /// Those that a person may mean: by number, by name in any case, or as a log shows a code of the link that it does
    /// not know, `code-99`.
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

    /// What to say to somebody who asked for a code that does not exist: what there is, and what comes near.
    package static func refusal(of query: String) -> String {
        let query = query.lowercased()
        let shown = PeerText.escaped(query, atMost: 40)
        if let number = Int(query) {
            if (129...192).contains(number) {
                return "there is no code \(number) of diglett's own: a shell says so of a program that the signal "
                    + "\(number - 128) ended"
            }
            let numbers = Set(self.all.map(\.number)).sorted()
            let near = [numbers.last { $0 < number }, numbers.first { $0 > number }].compactMap { $0 }
            return "there is no code \(shown) (near: \(near.map(String.init).joined(separator: ", "))): "
                + "there are \(Self.ranges(numbers))"
        }
        var slugs: [String] = []
        for entry in self.all where !slugs.contains(entry.slug) { slugs.append(entry.slug) }
        let near = slugs.filter { Self.isNear($0, query) }
        return "there is no code '\(shown)'"
            + (near.isEmpty
                ? ": there are \(slugs.joined(separator: ", "))"
                : ": perhaps \(near.joined(separator: " or ")) is meant; without CODE all are listed")
    }

    /// Numbers in order, with what follows each other drawn together.
    private static func ranges(_ numbers: [Int]) -> String {
        var ranges: [ClosedRange<Int>] = []
        for number in numbers {
            if let last = ranges.last, last.upperBound == number - 1 {
                ranges[ranges.count - 1] = last.lowerBound...number
            } else {
                ranges.append(number...number)
            }
        }
        return ranges.map { $0.count == 1 ? "\($0.lowerBound)" : "\($0.lowerBound) to \($0.upperBound)" }
            .joined(separator: ", ")
    }

    /// Whether a slug is what somebody may have wanted to type: a part of it, or it with up to two slips.
    private static func isNear(_ slug: String, _ query: String) -> Bool {
        guard query.utf8.count <= 40 else { return false }
        if query.utf8.count >= 3, slug.contains(query) || query.contains(slug) { return true }
        return self.distance(Array(slug.utf8), Array(query.utf8)) <= min(2, slug.utf8.count / 3)
    }

    /// How many letters must be put in, left out or replaced to make one of the other (Levenshtein's distance).
    private static func distance(_ left: [UInt8], _ right: [UInt8]) -> Int {
        var row = Array(0...right.count)
        for (index, letter) in left.enumerated() {
            var next = [index + 1]
            for (column, other) in right.enumerated() {
                next.append(min(row[column] + (letter == other ? 0 : 1), row[column + 1] + 1, next[column] + 1))
            }
            row = next
        }
        return row[right.count]
    }
}
