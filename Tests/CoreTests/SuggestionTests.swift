import Suggestions
import Testing

@Suite("A suggestion for a mistyped word")
struct SuggestionTests {
    private static let commands = [
        "status", "agents", "names", "streams", "penalties", "bans", "kick", "ban", "unban", "drain", "reload",
    ]

    @Test(
        "lists the words that begin with it, or differ from it in few letters",
        arguments: [
            // A word itself, and its beginning from three letters on.
            ("status", ["status"]), ("STATUS", ["status"]), ("stat", ["status"]), ("pen", ["penalties"]), ("pe", []),
            ("ban", ["ban", "bans"]),
            // Two swapped, one wrong, one missing and one superfluous letter.
            ("stauts", ["status"]), ("ststus", ["status"]), ("sttus", ["status"]), ("statuss", ["status"]),
            // Two mistakes in a long word, but only one if either word has at most four letters.
            ("sttuss", ["status"]), ("agnet", ["agents"]), ("realod", ["reload"]), ("bna", ["ban"]), ("knik", []),
            ("kikc", ["kick"]), ("banish", []), ("draim", ["drain"]), ("dra1m", ["drain"]), ("dr41m", []),
            ("frobnicate", []), ("", []), ("x", []), ("größe", []),
            (String(repeating: "x", count: 41), []),
        ])
    func near(_ word: String, _ expected: [String]) {
        #expect(Suggestion.near(word, among: Self.commands) == expected)
    }

    @Test("lists at most three words, the best first, as they are written")
    func order() {
        #expect(Suggestion.near("aaaa", among: ["aaae", "aaad", "aaac", "aaab"]) == ["aaab", "aaac", "aaad"])
        #expect(
            Suggestion.near("token", among: ["tokem1", "tokem", "token-file"]) == ["token-file", "tokem", "tokem1"])
        #expect(Suggestion.near("web-exce", among: ["Web-Exec"]) == ["Web-Exec"])
        // The longest word that is compared.
        let long = String(repeating: "x", count: 40)
        #expect(Suggestion.near(long, among: [long + "y"]) == [long + "y"])
    }

    @Test(
        "is a question at the end of an error, or nothing",
        arguments: [
            ("stauts", "; did you mean 'status'?"), ("ban", "; did you mean 'ban' or 'bans'?"), ("frobnicate", ""),
            ("", ""),
        ])
    func question(_ word: String, _ expected: String) {
        #expect(Suggestion.question(about: word, among: Self.commands) == expected)
    }
}
