/// Finds the word that a mistyped one was meant to be.
package enum Suggestion {
    /// The candidates that resemble `word`, the best first: at most three.
    ///
    /// A candidate resembles a word if it begins with it (three letters or more), or if few letters differ: one in a
    /// word of up to four letters, two in longer ones. Swapped neighbours count as one.
    package static func near(_ word: String, among candidates: some Sequence<String>) -> [String] {
        let word = word.lowercased()
        guard (2...40).contains(word.utf8.count) else { return [] }
        let ranked = candidates.compactMap { candidate -> (String, Int)? in
            let known = candidate.lowercased()
            if word.utf8.count >= 3, known.hasPrefix(word) { return (candidate, 0) }
            let distance = self.distance(Array(known.utf8), Array(word.utf8))
            let allowed = min(word.utf8.count, known.utf8.count) <= 4 ? 1 : 2
            return distance <= allowed ? (candidate, distance) : nil
        }
        return ranked.sorted { ($0.1, $0.0) < ($1.1, $1.0) }.prefix(3).map(\.0)
    }

    /// `; did you mean 'a' or 'b'?`, or empty.
    package static func question(about word: String, among candidates: some Sequence<String>) -> String {
        let near = self.near(word, among: candidates)
        return near.isEmpty ? "" : "; did you mean \(near.map { "'\($0)'" }.joined(separator: " or "))?"
    }

    /// The number of letters to insert, delete, replace or swap to get from one word to the other (optimal string
    /// alignment distance).
    private static func distance(_ left: [UInt8], _ right: [UInt8]) -> Int {
        var before: [Int] = []
        var row = Array(0...right.count)
        for (index, letter) in left.enumerated() {
            var next = [index + 1]
            for (column, other) in right.enumerated() {
                var best = min(row[column] + (letter == other ? 0 : 1), row[column + 1] + 1, next[column] + 1)
                if index > 0, column > 0, letter == right[column - 1], left[index - 1] == other {
                    best = min(best, before[column - 1] + 1)
                }
                next.append(best)
            }
            before = row
            row = next
        }
        return row[right.count]
    }
}
