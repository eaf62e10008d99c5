import Testing
import Wire

@Suite("Names")
struct NameTests {
    @Test(
        "are accepted if valid, and converted to lower case",
        arguments: zip(
            ["a", "example", "Example", "a-b", "0", "x1-2y", "ab-c", String(repeating: "a", count: 63)],
            ["a", "example", "example", "a-b", "0", "x1-2y", "ab-c", String(repeating: "a", count: 63)]))
    func good(_ text: String, _ canonical: String) {
        #expect(Name(text)?.text == canonical)
    }

    @Test(
        "are refused if invalid",
        arguments: [
            "", "-a", "a-", "a_b", "a.b", "a..b", "ab--cd", "xn--abc", "a\nb", "../x", "$(id)", "a'b", "a\"b", "a\0b",
            "\u{202E}abc", "ä", "localhost", "Admin", String(repeating: "a", count: 64),
        ])
    func bad(_ text: String) {
        #expect(Name(text) == nil)
    }

    @Test("are refused at 64 KiB")
    func endless() {
        #expect(Name(String(repeating: "a", count: 65_536)) == nil)
    }

    @Test("text from peers cannot forge lines, move the cursor or change the writing direction")
    func escaping() {
        #expect(PeerText.escaped("plain text-1") == "plain text-1")
        #expect(PeerText.escaped("a\nb") == "a\\u{A}b")
        #expect(PeerText.escaped("\u{1B}[2J") == "\\u{1B}[2J")
        #expect(PeerText.escaped("\u{202E}x") == "\\u{202E}x")
        #expect(PeerText.escaped("back\\slash") == "back\\u{5C}slash")
        #expect(PeerText.escaped("grün") == "grün")
        #expect(PeerText.escaped(String(repeating: "a", count: 300)).count == 257)
    }
}
