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

    @Test(
        "an error about a name explains the rule that it breaks, and proposes a name",
        arguments: [
            ("", "the name is empty"), ("localhost", "the name 'localhost' is reserved, choose another"),
            ("Admin", "the name 'Admin' is reserved, choose another"),
            ("app.example.com", "'app.example.com' is not a valid name: dots are not allowed; try 'app'"),
            ("a..b", "'a..b' is not a valid name: dots are not allowed; try 'a'"),
            (".", "'.' is not a valid name: dots are not allowed"),
            ("admin.b", "'admin.b' is not a valid name: dots are not allowed"),
            ("my_app", "'my_app' is not a valid name: '_' is not allowed, only a-z, 0-9 and hyphens; try 'my-app'"),
            ("My App!", "'My App!' is not a valid name: ' ' is not allowed, only a-z, 0-9 and hyphens; try 'my-app'"),
            ("a\nb", "'a\\u{A}b' is not a valid name: '\\u{A}' is not allowed, only a-z, 0-9 and hyphens; try 'a-b'"),
            ("_", "'_' is not a valid name: '_' is not allowed, only a-z, 0-9 and hyphens"),
            ("admin_", "'admin_' is not a valid name: '_' is not allowed, only a-z, 0-9 and hyphens"),
            ("ä", "'ä' is not a valid name: 'ä' is not allowed, only a-z, 0-9 and hyphens"),
            ("-a", "'-a' is not a valid name: it must not begin or end with a hyphen; try 'a'"),
            ("a-", "'a-' is not a valid name: it must not begin or end with a hyphen; try 'a'"),
            ("-", "'-' is not a valid name: it must not begin or end with a hyphen"),
            (
                "ab--cd",
                "'ab--cd' is not a valid name: two hyphens at positions 3 and 4 are reserved by DNS; try 'ab-cd'"
            ),
            ("xn--a", "'xn--a' is not a valid name: two hyphens at positions 3 and 4 are reserved by DNS; try 'xn-a'"),
        ])
    func fault(_ text: String, _ expected: String) {
        #expect(Name(text) == nil)
        #expect(Name.fault(of: text) == expected)
    }

    @Test("an error about a long name contains its length, and at most 64 of its characters")
    func longFault() {
        let text = String(repeating: "a", count: 64)
        #expect(Name.fault(of: text) == "'\(text)' is not a valid name: it has 64 characters, 63 at most are allowed")
        let shown = PeerText.escaped(String(repeating: "a", count: 65_536), atMost: 64)
        #expect(
            Name.fault(of: String(repeating: "a", count: 65_536))
                == "'\(shown)' is not a valid name: it has 65536 characters, 63 at most are allowed")
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
