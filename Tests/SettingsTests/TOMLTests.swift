import Settings
import TestSupport
import Testing

@Suite("A TOML file")
struct TOMLTests {
    private func root(_ text: String) throws -> TOMLFile.Section { try TOMLFile(path: "f", text: text).root }

    @Test("has values of each type, with their places")
    func values() throws {
        let root = try root(
            """
            # a comment
            text = 'one "two"'
            number = -7
            real = 0.5
            yes = true
            list = [
                "a", "ä",
            ]
            one = "b"
            dotted.key = 1
            inline = { a = "x", b = 2 }

            [table]
            text = "in it"

            [[many]]
            n = 1
            [[many]]
            n = 2
            """)
        #expect(try root.string("text") == "one \"two\"")
        #expect(try root.integer("number") == -7)
        #expect(try root.number("real") == 0.5)
        #expect(try root.number("number") == -7)
        #expect(try root.boolean("yes") == true)
        #expect(try root.strings("list") == ["a", "ä"])
        #expect(try root.strings("one") == ["b"])
        #expect(try root.section("dotted")?.integer("key") == 1)
        #expect(try root.section("inline")?.string("a") == "x")
        #expect(try root.section("table")?.string("text") == "in it")
        let many = try root.sections("many")
        #expect(try many.map { try $0.integer("n") } == [1, 2])
        #expect(root.place(of: "real") == "f:4")
        #expect(root.place(of: "one") == "f:9")
        #expect(root.place(of: "none") == "f")
        #expect(many[1].place(of: "n") == "f:19")
        #expect(many[1].place(of: "none") == "f:18")
        #expect(try root.section("table")?.place(of: "none") == "f:13")
    }

    @Test(
        "is refused with the line of a mistake",
        arguments: [
            ("a = 1\nb = \n", "f:2"), ("a = 1\na = 2\n", "f:2"), ("[x\n", "f:1"), ("\n\n\"", "f:3"),
            ("a = 99999999999999999999\n", "f:1"), ("a = \"\u{1}\"", "f:1"), ("a = 1\n[\n", "f:2"),
            ("[[[agent]]]", "f:1"),
            ("[*]", "f:1"), ("[.a]", "f:1"), ("x=[}", "f:1"), ("[é]", "f:1"), ("\nä = 1", "f:2"), ("[[", "f:1"),
            ("[a", "f:1"), ("a = \"\\\n", "f:1"), ("a = '", "f:1"), (".", "f:1"), ("=", "f:1"), ("a =", "f:1"),
            ("a = {b = 1, b = 2}", "f:1"), ("a.b = 1\na = 2", "f:2"), ("[a]\n[a]", "f:2"), ("a = 1 b = 2", "f:1"),
        ])
    func mistakes(_ text: String, _ place: String) {
        #expect(message { _ = try root(text) }.hasPrefix("\(place): "), "\(message { _ = try root(text) })")
    }

    @Test(
        "is refused with the line in which an unclosed string begins",
        arguments: [
            ("a = \"x", 1), ("a = 'x", 1), ("a = 1\nb = \"x\nc = \"y\"\n", 2), ("a = 1\nb = 'x\nc = 'y'\n", 2),
            ("a = 1\nb = \"\"\"x\ny\nz\n", 2), ("a = \"\"\"x\"\"\"\nb = \'\'\'x\ny\'\'\n", 2), ("a = \"\\\"\n", 1),
            ("a = [\n  \"x\",\n  \"y,\n]\n", 3), ("a = \"x\r\nb = 1\r\n", 1),
        ])
    func unclosed(_ text: String, _ line: Int) {
        #expect(
            message { _ = try root(text) } == "f:\(line): the string that begins on line \(line) is not closed")
    }

    @Test("is refused if a value has the wrong type, including dates")
    func types() throws {
        let root = try root("a = 2026-11-23\nb = [1]\nc = 1\n[[d]]\n")
        #expect(message { _ = try root.string("a") } == "f:1: 'a' must be text in quotes, a = \"...\"")
        #expect(message { _ = try root.strings("b") } == "f:2: 'b' must be text or a list of texts")
        #expect(message { _ = try root.section("c") } == "f:3: 'c' must be a table, [c]")
        #expect(message { _ = try root.sections("c") } == "f:3: 'c' must be a list of tables, [[c]]")
        #expect("\(root.unknownKeys(beside: ["a", "b", "c"])[0])".hasPrefix("f:4: unknown key 'd'"))
    }

    @Test("is refused if nested too deeply, before the stack overflows")
    func depth() {
        let text = "a = " + String(repeating: "[", count: 100_000)
        #expect(message { _ = try root(text) }.hasPrefix("f:1: "))
        for text in [
            "[" + Array(repeating: "a", count: 60_000).joined(separator: ".") + "]",
            Array(repeating: "'a'", count: 60_000).joined(separator: " . ") + " = 1",
            "a = {" + Array(repeating: "a", count: 60_000).joined(separator: ".") + " = 1}",
        ] { #expect(message { _ = try root(text) } == "f:1: a key has more than 64 parts") }
        #expect(message { _ = try root("a = " + String(repeating: "{a = ", count: 50_000)) }.hasPrefix("f:1: "))
    }

    @Test("may contain dots and letters in comments, strings and numbers")
    func harmless() throws {
        let dots = String(repeating: ".", count: 100)
        let lines = [
            "# \(dots) ä", "a = \"\(dots) ä \\\" \(dots)\" # ü \(dots)", "b = '\(dots) \\'", "c = \"\"\"",
            "\(dots) \"\" ä\"\"\"\"", "d = [\(Array(repeating: "0.5", count: 100).joined(separator: ", "))]", "e = 1",
        ]
        let root = try root(lines.joined(separator: "\n"))
        #expect(try root.string("a") == "\(dots) ä \" \(dots)")
        #expect(try root.string("b") == "\(dots) \\")
        #expect(try root.string("c") == "\(dots) \"\" ä\"")
        #expect(root.place(of: "e") == "f:7")
    }

    @Test("may begin with a byte order mark, and has the same line numbers")
    func mark() throws {
        let root = try root("\u{FEFF}a = 1\r\nb = 2\r\n")
        #expect(try root.integer("a") == 1 && root.integer("b") == 2)
        #expect(root.place(of: "a") == "f:1" && root.place(of: "b") == "f:2")
        #expect(root.unknownKeys(beside: ["a", "b"]).isEmpty)
        #expect(message { _ = try self.root("\u{FEFF}a = 1\nb = \n") }.hasPrefix("f:2: "))
        #expect(
            message { _ = try self.root("a = 1\n\u{FEFF}b = 1\n") }.hasPrefix(
                "f:2: non-ASCII letters must be in quotes"))
        #expect(try self.root("\u{FEFF}").string("a") == nil)
    }

    @Test("of random pieces is parsed or refused, and never traps")
    func random() {
        var generator = SeededGenerator(seed: 5)
        let pieces = [
            "[", "]", "{", "}", "=", ".", ",", "\"", "'", "\"\"\"", "'''", "\n", "#", "a", "1", "é", "-", "+", " ",
            "\\",
            "true", "inf", "2026-11-23", "0x", "\u{0}", "\r", "[[", "]]", "\t", "e", "_", ":",
        ]
        for _ in 0..<20_000 {
            let count = Int.random(in: 1...12, using: &generator)
            let text = (0..<count).map { _ in pieces.randomElement(using: &generator) ?? "" }.joined()
            _ = message { _ = try root(text) }
        }
    }
}
