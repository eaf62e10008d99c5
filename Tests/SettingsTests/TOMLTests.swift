import Settings
import Testing

/// Numbers that are the same in every run (SplitMix64).
struct SeededGenerator: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        self.state &+= 0x9E37_79B9_7F4A_7C15
        var z = self.state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }
}

@Suite("A TOML file")
struct TOMLTests {
    private func root(_ text: String) throws -> TOMLFile.Section { try TOMLFile(path: "f", text: text).root }

    @Test("has values of each type, and tells where they stand")
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
        "with a mistake names its line",
        arguments: [
            ("a = 1\nb = \n", "f:2"), ("a = 1\na = 2\n", "f:2"), ("[x\n", "f:1"), ("\n\n\"", "f:3"),
            ("a = 99999999999999999999\n", "f:1"), ("a = \"\u{1}\"", "f:1"),
        ])
    func mistakes(_ text: String, _ place: String) {
        #expect(message { _ = try root(text) }.hasPrefix("\(place): "), "\(message { _ = try root(text) })")
    }

    @Test("with a value of another type is refused, dates included")
    func types() throws {
        let root = try root("a = 2026-11-23\nb = [1]\nc = 1\n[[d]]\n")
        #expect(message { _ = try root.string("a") } == "f:1: 'a' must be a text in quotes")
        #expect(message { _ = try root.strings("b") } == "f:2: 'b' must be a text or a list of texts")
        #expect(message { _ = try root.section("c") } == "f:3: 'c' must be a table, [c]")
        #expect(message { _ = try root.sections("c") } == "f:3: 'c' must be a list of tables, [[c]]")
        #expect(message { try root.finish() }.hasPrefix("f:4: unknown key 'd'"))
    }

    @Test("deep in tables and lists is refused rather than read until the stack ends")
    func depth() {
        let text = "a = " + String(repeating: "[", count: 100_000)
        #expect(message { _ = try root(text) }.hasPrefix("f:1: "))
    }
}
