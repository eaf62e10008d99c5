import Foundation
import Settings
import TestSupport
import Testing
import Wire

@Suite("Agents file")
struct AgentsFileTests {
    private let hash = "sha256:" + String(repeating: "0a", count: 32)
    private let pin = "sha256/" + String(repeating: "A", count: 43) + "="

    private func read(_ text: String) throws -> [AgentEntry] { try AgentsFile(path: "f", text: text).agents }

    @Test("is read with all its keys")
    func everything() throws {
        let agents = try read(
            """
            [[agent]]
            name = "web"
            token = "\(hash)"
            v1-token = "\(hash)"
            former-token = "\(hash.replacing("0a", with: "0b"))"
            former-v1-token = "\(hash.replacing("0a", with: "0c"))"
            former-token-until = "2027-02-20T01:00:00Z"
            pins = ["\(pin)"]
            names = ["app-*", "api"]
            ports = ["30000-30010", "40000"]
            expires = "2027-02-21"
            disabled = true
            max-links = 2
            max-names = 3
            max-streams = 4
            [[agent]]
            name = "bare"
            """)
        var web = AgentEntry(name: "web")
        web.tokenHash = [UInt8](repeating: 10, count: 32)
        web.version1TokenHash = web.tokenHash
        web.formerTokenHash = [UInt8](repeating: 11, count: 32)
        web.formerVersion1TokenHash = [UInt8](repeating: 12, count: 32)
        web.formerTokenUntil = 1_803_085_200
        web.pins = [pin]
        web.names = [NamePattern("app-*"), NamePattern("api")].compactMap { $0 }
        web.ports = [try PortRange("30000-30010", place: ""), try PortRange("40000", place: "")]
        web.expires = 1_803_168_000
        web.isDisabled = true
        (web.maxLinks, web.maxNames, web.maxStreams) = (2, 3, 4)
        #expect(agents == [web, AgentEntry(name: "bare")])
    }

    @Test("reports all its mistakes, each with its line")
    func mistakes() {
        let text = """
            [[agent]]
            name = "one"
            names = ["app-*"]
            colour = "red"
            [[agent]]
            name = "two"
            names = ["app-1"]
            expires = "2027-02-31"
            max-links = 0
            token = "dgl_two_secret"
            [[agent]]
            name = "No Name"
            disabled = "yes"
            [[agent]]
            name = "one"
            ports = ["9-1"]
            pins = ["x"]
            """
        let found = message { _ = try read(text) }.split(separator: "\n").map(String.init)
        for expected in [
            "f:4: unknown key 'colour'", "f:8: '2027-02-31' is not a date",
            "f:9: 'max-links' must be from 1 to 65535, not 0",
            "f:10: is not a token hash", "f:7: 'app-1' of 'two' overlaps with 'app-*' of 'one' (f:3)",
            "f:12: 'No Name'", "f:13: 'disabled' must be true or false", "f:16: '9-1' is not a port range",
            "f:17: 'x' is not a pin",
            "f:15: the agent 'one' is already defined at f:2",
        ] { #expect(found.contains { $0.hasPrefix(expected) }, "\(expected)") }
        #expect(found.count == 10)
        #expect(!found.contains { $0.contains("secret") }, "a token is never shown")
    }

    @Test("is refused if two agents have the same token or key")
    func shared() {
        let text = """
            [[agent]]
            name = "one"
            token = "\(hash)"
            pins = ["\(pin)"]
            [[agent]]
            name = "two"
            token = "\(hash)"
            pins = ["\(pin)"]
            """
        let found = message { _ = try read(text) }
        #expect(found.contains("f:8: the pin") && found.contains("f:7: the token belongs to 'one'"))
    }

    @Test("reports every overlap among many patterns")
    func manyPatterns() throws {
        var generator = SeededGenerator(seed: 27)
        for _ in 0..<60 {
            let texts = (0..<30).map { _ in
                String(
                    (0..<Int.random(in: 2...5, using: &generator)).map { _ in
                        "aab*".randomElement(using: &generator) ?? "a"
                    })
            }
            let patterns = texts.map { NamePattern($0) }
            var expected: Set<Int> = []
            for (index, pattern) in patterns.enumerated() {
                let others = patterns[..<index].compactMap { $0 }
                if let pattern, others.contains(where: { $0.overlaps(pattern) }) { expected.insert(index) }
            }
            let text = texts.enumerated().map { "[[agent]]\nname = \"n\($0)\"\nnames = [\"\($1)\"]\n" }.joined()
            let found = message { _ = try read(text) }.split(separator: "\n").filter { $0.contains("overlaps") }
            // Agent n starts at line 3n + 1.
            #expect(Set(found.map { ((Int($0.split(separator: ":")[1]) ?? 0) - 3) / 3 }) == expected)
        }
    }

    @Test("is edited line by line, and keeps comments and order")
    func editing() throws {
        try withDirectory { directory in
            let path = "\(directory)/agents.toml"
            try write(
                """
                # ours
                [[agent]]
                name = "one"
                # its laptop
                token = "\(hash)" # since May
                names = [
                    "app-*", # and so on
                    "api",
                ]

                # the other one
                [[agent]]
                name = "two"
                names = ["web"]
                """, path)
            var editor = try AgentsFileEditor(path: path)
            try editor.update("one") {
                $0.tokenHash = [UInt8](repeating: 0xFF, count: 32)
                $0.names = []
                $0.pins = [pin]
            }
            let text = try String(contentsOfFile: path, encoding: .utf8)
            #expect(
                text == """
                    # ours
                    [[agent]]
                    name = "one"
                    # its laptop
                    token = "sha256:\(String(repeating: "ff", count: 32))" # since May
                    pins = ["\(pin)"]

                    # the other one
                    [[agent]]
                    name = "two"
                    names = ["web"]

                    """)
            try editor.remove("one")
            #expect(
                try String(contentsOfFile: path, encoding: .utf8)
                    == "# ours\n\n# the other one\n[[agent]]\nname = \"two\"\nnames = [\"web\"]\n")
            #expect(
                message { try editor.remove("one") }
                    == "argument NAME: no agent 'one' in \(path); known agents are two")
            #expect(message { try editor.add(AgentEntry(name: "two")) }.contains("already exists"))
            var third = AgentEntry(name: "three")
            third.names = [try #require(NamePattern("w*"))]
            #expect(message { try editor.add(third) }.contains("overlaps"))
        }
    }

    @Test("a former token needs an expiry, and belongs to one agent")
    func formerTokens() {
        let (head, until) = ("[[agent]]\nname = \"one\"\n", "former-token-until = \"2027-02-21\"\n")
        let token = "former-token = \"\(hash)\"\n"
        #expect(message { try read(head + token + until) } == "")
        #expect(message { try read(head + token) } == "f:3: 'former-token' needs 'former-token-until', when it ends")
        #expect(message { try read("\(head)former-v1-\(token.dropFirst(7))") }.contains("'former-v1-token' needs"))
        #expect(message { try read(head + until) }.hasPrefix("f:3: needs 'former-token'"))
        let mistakes = message { try read("\(head)former-token = \"x\"\nformer-token-until = \"soon\"\n") }
        #expect(mistakes.split(separator: "\n").count == 2, "\(mistakes)")
        #expect(mistakes.contains("f:3: is not a token hash"))
        #expect(mistakes.contains("f:4: 'soon' is not a date"))
        let both = "[[agent]]\nname = \"two\"\ntoken = \"\(hash)\"\n"
        #expect(message { try read(head + token + until + both) }.contains("the token belongs to 'one' already"))
    }

    @Test("a former token is added and removed without losing comments")
    func editingFormerTokens() throws {
        try withDirectory { directory in
            let path = "\(directory)/agents.toml"
            let rest = "names = \"a\" # all\n\n# two\n[[agent]]\nname = \"two\"\n"
            let before = "[[agent]]\nname = \"one\"\n# of May\ntoken = \"\(hash)\" # laptop\n"
            try write(before + rest, path)
            // Each editor holds the lock until it is deallocated.
            func update(_ change: (inout AgentEntry) -> Void) throws {
                var editor = try AgentsFileEditor(path: path)
                try editor.update("one", change)
            }
            let old = try AgentsFile(path: path).agents[0]
            try update {
                $0.formerTokenHash = old.tokenHash
                $0.formerTokenUntil = 1_803_085_200
                $0.tokenHash = [UInt8](repeating: 0xFF, count: 32)
            }
            let written = try AgentsFile(path: path).agents[0]
            #expect(written.formerTokenHash == old.tokenHash)
            #expect(written.formerTokenUntil == 1_803_085_200)
            let former = "former-token = \"\(hash)\"\nformer-token-until = \"2027-02-20T01:00:00Z\"\n"
            let after = before.replacing("0a", with: "ff")
            #expect(
                try String(contentsOfFile: path, encoding: .utf8)
                    == after + rest.replacing("# all\n", with: "# all\n\(former)"))
            // The operator has edited the file by hand.
            let noted = former.replacing("\"\nformer", with: "\" # till Monday\nformer")
            try write(after + rest.replacing("# all\n", with: "# all\n\(noted)"), path)
            try update {
                $0.formerTokenHash = nil
                $0.formerTokenUntil = nil
            }
            #expect(
                try String(contentsOfFile: path, encoding: .utf8)
                    == after + rest.replacing("# all\n", with: "# all\n# till Monday\n"))
        }
    }

    @Test(
        "gets a new pin after the existing ones, whose lines stay",
        arguments: [
            (
                "pins = [\n    \"A\", # desk\n    # old\n    'B' # lap\n  ] # all",
                "pins = [\n    \"A\", # desk\n    # old\n    'B', # lap\n    \"C\",\n  ] # all"
            ),
            ("pins = [ # all\n\t\"A\",\n\t\"B\",\n]", "pins = [ # all\n\t\"A\",\n\t\"B\",\n\t\"C\",\n]"),
            ("pins = [\"A\",\n  \"B\" ] # all", "pins = [\"A\",\n  \"B\", \"C\" ] # all"),
            ("pins = ['A', \"B\",] # ]", "pins = ['A', \"B\", \"C\"] # ]"),
            ("pins = [\"A\", \"B\"\n]", "pins = [\"A\", \"B\",\n    \"C\",\n]"),
            ("pins = 'A' # all", "pins = [\"A\", \"C\"] # all"),
        ])
    func pins(_ before: String, _ after: String) throws {
        func pinned(_ text: String) -> String {
            ["A", "B", "C"].reduce(text) { text, letter in
                ["\"", "'"].reduce(text) { text, quote in
                    text.replacing(
                        quote + letter + quote, with: quote + self.pin.replacing("/A", with: "/\(letter)") + quote)
                }
            }
        }
        try withDirectory { directory in
            let path = "\(directory)/agents.toml"
            try write("[[agent]]\nname = 'bob'\n\(pinned(before))\nnames = ['x']\n", path)
            var editor = try AgentsFileEditor(path: path)
            try editor.update("bob") { $0.pins.append(pinned("'C'").filter { $0 != "'" }) }
            #expect(
                try String(contentsOfFile: path, encoding: .utf8)
                    == "[[agent]]\nname = 'bob'\n\(pinned(after))\nnames = ['x']\n")
        }
    }

    @Test("may have names in single quotes when it is edited")
    func singleQuotes() throws {
        try withDirectory { directory in
            let path = "\(directory)/agents.toml"
            try write("[[agent]]\nname = 'bob'\n'token' = '\(hash)' # May\n[[agent]]\nname = 'eve'\n", path)
            var editor = try AgentsFileEditor(path: path)
            try editor.update("bob") { $0.tokenHash = [UInt8](repeating: 0xFF, count: 32) }
            #expect(
                try String(contentsOfFile: path, encoding: .utf8).contains(
                    "token = \"sha256:\(String(repeating: "ff", count: 32))\" # May\n"))
            try editor.remove("bob")
            #expect(try String(contentsOfFile: path, encoding: .utf8) == "[[agent]]\nname = 'eve'\n")
        }
    }

    @Test("a refused addition is reported without line numbers that the file does not have")
    func overlapOfAnAddition() throws {
        try withDirectory { directory in
            let path = "\(directory)/agents.toml"
            try write("[[agent]]\nname = \"one\"\nnames = [\"web\"]\n", path)
            var editor = try AgentsFileEditor(path: path)
            var agent = AgentEntry(name: "two")
            agent.names = [try #require(NamePattern("w*"))]
            let text = message { try editor.add(agent) }
            #expect(text.hasPrefix("\(path): 'w*' of 'two' overlaps with 'web' of 'one' (\(path):3)"), "\(text)")
        }
    }

    @Test("thousands of patterns that begin with a star need few comparisons")
    func stars() throws {
        var text = ""
        for number in 0..<5_000 {
            let names = (0..<4).map { "\"*a*b*c*-\(number)z\($0)\"" }.joined(separator: ", ")
            text += "[[agent]]\nname = \"a\(number)\"\nnames = [\(names)]\n"
        }
        let clock = ContinuousClock()
        var count = 0
        let time = try clock.measure { count = try read(text).count }
        #expect(count == 5_000)
        // A debug build takes a second or two. Comparing all pairs, 200 million times, takes minutes.
        #expect(time < .seconds(20))
        text += "[[agent]]\nname = \"last\"\nnames = [\"*-4321z2\"]\n"
        #expect(message { try read(text) }.contains("'*-4321z2' of 'last' overlaps with '*a*b*c*-4321z2' of 'a4321'"))
    }

    @Test("control characters in the file are escaped in errors")
    func controls() {
        let text = message { try read("[[agent]]\nname = \"a\\u001B[2J\\u0007\\u202Eb\"\n") }
        #expect(text.contains("'a\\u{1B}[2J\\u{7}\\u{202E}b'"), "\(text)")
        #expect(SettingsError("a\nb", "c\\u{1B}é…").description == "a\\u{A}b: c\\u{1B}é…")
    }

    @Test("is left unchanged if it cannot be edited safely")
    func inlineTables() throws {
        try withDirectory { directory in
            let path = "\(directory)/agents.toml"
            let text = "agent = [{ name = \"one\", names = [\"a\"] }]\n"
            try write(text, path)
            var editor = try AgentsFileEditor(path: path)
            #expect(
                message { try editor.remove("one") }.contains(
                    "has a form that this command cannot edit: edit the file by hand"))
            #expect(try String(contentsOfFile: path, encoding: .utf8) == text)
        }
    }

    @Test("is refused if others can read it")
    func access() throws {
        try withDirectory { directory in
            let path = "\(directory)/agents.toml"
            try write("", path, mode: 0o644)
            #expect(message { _ = try AgentsFile(path: path) }.contains("chmod 600"))
            #expect(message { _ = try AgentsFileEditor(path: path) }.contains("chmod 600"))
        }
    }

    @Test("is refused with the line if it is not UTF-8, for reading and for editing")
    func encoding() throws {
        try withDirectory { directory in
            let path = "\(directory)/agents.toml"
            try write("", path)
            var bytes = Array("[[agent]]\r\nname = \"one\"\n# M".utf8)
            bytes.append(0xFC)
            bytes += Array("ller\n# \u{FC}\n".utf8)
            try Data(bytes).write(to: URL(fileURLWithPath: path))
            for text in [message { try AgentsFile(path: path) }, message { _ = try AgentsFileEditor(path: path) }] {
                #expect(text.hasPrefix("\(path):3: is not UTF-8 text"), "\(text)")
            }
            #expect(message { try TOMLFile(path: path) }.hasPrefix("\(path):3: is not UTF-8 text"))
            #expect(try Array(Data(contentsOf: URL(fileURLWithPath: path))) == bytes)
        }
    }

    @Test("keeps its line endings and a byte order mark", arguments: ["", "\u{FEFF}"])
    func lineEnds(_ mark: String) throws {
        try withDirectory { directory in
            let path = "\(directory)/agents.toml"
            let eve = "[[agent]]\r\nname = \"eve\"\r\n"
            let pins = "pins = [\r\n  \"\(pin)\" # desk\r\n]\r\n"
            let bob = "[[agent]]\r\nname = \"bob\"\r\ntoken = \"\(hash)\" # May\r\n\(pins)"
            // One line has another line ending, and keeps it.
            try write("\(mark)\(bob)\r\n# She\n\(eve)", path)
            var editor = try AgentsFileEditor(path: path)
            let other = pin.replacing("/A", with: "/B")
            try editor.update("bob") {
                $0.tokenHash = [UInt8](repeating: 0xFF, count: 32)
                $0.pins.append(other)
                $0.maxLinks = 2
            }
            try editor.add(AgentEntry(name: "joe"))
            let changed =
                bob.replacing("0a", with: "ff")
                .replacing("\" # desk\r\n", with: "\", # desk\r\n  \"\(other)\",\r\n") + "max-links = 2\r\n"
            let joe = "\r\n[[agent]]\r\nname = \"joe\"\r\n"
            // Compare bytes, because texts with different bytes can be equal as Swift strings.
            func content() throws -> [UInt8] { Array(try Data(contentsOf: URL(fileURLWithPath: path))) }
            #expect(try content() == Array("\(mark)\(changed)\r\n# She\n\(eve)\(joe)".utf8))
            try editor.remove("eve")
            #expect(try content() == Array("\(mark)\(changed)\r\n# She\n\(joe)".utf8))
            try editor.remove("bob")
            #expect(try AgentsFile(path: path).agents.map(\.name) == ["joe"])
            #expect(try content() == Array("\(mark)\r\n# She\n\(joe)".utf8))
        }
    }

    @Test("a symbolic link is not replaced by a file, and the error contains its target")
    func links() throws {
        try withDirectory { given in
            let directory = URL(fileURLWithPath: given).resolvingSymlinksInPath().path
            let path = "\(directory)/agents.toml"
            try FileManager.default.createSymbolicLink(atPath: path, withDestinationPath: "real.toml")
            // The first time, the target does not exist.
            for _ in 0..<2 {
                let text = message { _ = try AgentsFileEditor(path: path) }
                #expect(
                    text.hasPrefix(
                        "\(path): is a symbolic link to \(directory)/real.toml and would be replaced by a file: "),
                    "\(text)")
                #expect(text.hasSuffix("--agents-file \(directory)/real.toml"))
                #expect(try FileManager.default.destinationOfSymbolicLink(atPath: path) == "real.toml")
                try write("[[agent]]\nname = \"one\"\n", "\(directory)/real.toml")
            }
            // Reading follows the link.
            #expect(try AgentsFile(path: path).agents.map(\.name) == ["one"])
            var editor = try AgentsFileEditor(path: "\(directory)/real.toml")
            try editor.remove("one")
            #expect(try AgentsFile(path: path).agents.isEmpty)
        }
    }

    @Test("never grows beyond the maximum size for reading")
    func size() throws {
        try withDirectory { directory in
            let path = "\(directory)/agents.toml"
            let head = "[[agent]]\nname = \"one\"\n#"
            let text = head + String(repeating: "x", count: AgentsFile.maxBytes - head.utf8.count - 10) + "\n"
            try write(text, path)
            var editor = try AgentsFileEditor(path: path)
            #expect(message { try editor.add(AgentEntry(name: "two")) }.contains("would exceed 4194304 bytes"))
            #expect(try String(contentsOfFile: path, encoding: .utf8) == text)
            #expect(
                try FileManager.default.contentsOfDirectory(atPath: directory).sorted() == [
                    "agents.toml", "agents.toml.lock",
                ])
            #expect(try AgentsFile(path: path).agents.map(\.name) == ["one"])
        }
    }
}
