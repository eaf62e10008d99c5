import AgentCore
import Explain
import Foundation
import Testing
import Wire

@Suite("Explanations")
struct ExplainTests {
    private func entries(_ kind: Explanation.Kind) -> [Explanation] { Explanations.all.filter { $0.kind == kind } }

    @Test("exist for each code of the link and each exit code of the agent, and for no others")
    func complete() {
        let codes = self.entries(.link).map { "\($0.number) \($0.slug)" }
        #expect(codes.sorted() == ErrorCode.all.map { "\($0.rawValue) \($0)" }.sorted())
        let exits = self.entries(.agentExit).map { "\($0.number) \($0.slug)" }
        #expect(exits == ExitReason.allCases.map { "\($0.rawValue) \($0.slug)" })
    }

    @Test(
        "numbers and names are unique within a kind, and no text is empty",
        arguments: Explanation.Kind.allCases)
    func unique(_ kind: Explanation.Kind) {
        let entries = self.entries(kind)
        #expect(Set(entries.map(\.slug)).count == entries.count)
        #expect(Set(entries.map(\.number)).count == entries.count)
        #expect(entries.map(\.number) == entries.map(\.number).sorted())
        for entry in entries {
            for text in [entry.meaning, entry.place, entry.advice] {
                // A bar would end a cell of the table in docs/errors.md.
                #expect(!text.isEmpty && !text.contains("|") && !text.contains("\n"), "\(entry.slug)")
            }
            #expect(entry.advice.hasSuffix("."), "\(entry.slug)")
        }
    }

    @Test(
        "are found by number, by name in any case, and by the form that logs use for unknown codes",
        arguments: zip(
            ["14", "Name-Taken", "64", "code-33", "CODE-99", "version", "99", "code-70000", "", "-1"],
            [
                ["14 name-taken"], ["14 name-taken", "82 name-taken"], ["64 usage", "64 usage", "64 login-refused"],
                ["33 version"], ["99 code-99"], ["17 version", "33 version"], [], [], [], [],
            ]))
    func found(_ query: String, _ expected: [String]) {
        #expect(Explanations.find(query).map { "\($0.number) \($0.slug)" } == expected)
    }

    @Test(
        "an unknown code is refused with a similar one, or with the way to the list",
        arguments: [
            ("nmae-taken", "unknown code 'nmae-taken'; did you mean 'name-taken'?"),
            ("Name-Tkaen", "unknown code 'name-tkaen'; did you mean 'name-taken'?"),
            ("registrar", "unknown code 'registrar'; did you mean 'registrar-failed'?"),
            ("gateway", "unknown code 'gateway'; did you mean 'wrong-gateway-key'?"),
            ("the-version", "unknown code 'the-version'; did you mean 'version'?"),
            ("19", "unknown code 19: 'diglett explain' and 'diglett-server explain' list all codes"),
            ("-1", "unknown code -1: 'diglett explain' and 'diglett-server explain' list all codes"),
            ("128", "unknown code 128: 'diglett explain' and 'diglett-server explain' list all codes"),
            ("137", "unknown code 137: a shell reports it for a program that signal 9 ended"),
            ("192", "unknown code 192: a shell reports it for a program that signal 64 ended"),
            ("193", "unknown code 193: 'diglett explain' and 'diglett-server explain' list all codes"),
            ("code-70000", "unknown code 'code-70000': 'diglett explain' and 'diglett-server explain' list all codes"),
            ("frobnicate", "unknown code 'frobnicate': 'diglett explain' and 'diglett-server explain' list all codes"),
            ("", "unknown code '': 'diglett explain' and 'diglett-server explain' list all codes"),
            ("na", "unknown code 'na': 'diglett explain' and 'diglett-server explain' list all codes"),
            ("x\u{1B}[2J", "unknown code 'x\\u{1B}[2j': 'diglett explain' and 'diglett-server explain' list all codes"),
        ])
    func refusal(_ query: String, _ expected: String) {
        #expect(Explanations.find(query).isEmpty)
        #expect(Explanations.refusal(of: query) == expected)
    }

    @Test("a code of the link and the exit code that it causes refer to each other")
    func related() throws {
        let taken = try #require(Explanations.find("code-82").first)
        #expect(taken.related.map(\.number) == [14])
        let refused = try #require(Explanations.find("name-refused").first)
        #expect(refused.related.map(\.slug) == ["name-invalid", "name-not-allowed", "too-many-names"])
        #expect(Explanations.find("drain").flatMap(\.related).isEmpty)
        #expect(Page.detail([taken]).contains("Ends diglett: with 14 name-taken\n"))
    }

    @Test("fit a terminal of 80 columns")
    func width() {
        let lines = Page.detail(Explanations.all).split(separator: "\n")
        #expect(lines.count > 3 * Explanations.all.count)
        for line in lines { #expect(line.count < 80, "\(line)") }
    }

    @Test("the list has a line for each entry")
    func list() {
        let lines = Page.list.split(separator: "\n")
        for entry in Explanations.all {
            let line = lines.first {
                $0.split(separator: " ").starts(with: ["\(entry.number)", Substring(entry.slug)])
                    && $0.hasSuffix(" \(entry.meaning)")
            }
            #expect(line != nil, "\(entry.slug)")
        }
    }

    @Test("docs/errors.md matches the output of 'diglett-server explain --markdown'")
    func document() throws {
        let file = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent().appendingPathComponent("docs/errors.md")
        let isSame = try String(contentsOf: file, encoding: .utf8) == Page.markdown
        #expect(isSame, "docs/errors.md is old; run: swift run diglett-server explain --markdown >docs/errors.md")
    }
}
