/// The explanations as text for people: for a terminal, and as `docs/errors.md`.
package enum Page {
    /// Columns of a terminal, minus a margin.
    private static let width = 78

    private static func heading(of kind: Explanation.Kind) -> (one: String, all: String) {
        switch kind {
        case .agentExit: ("exit code of diglett", "Exit codes of diglett")
        case .gatewayExit: ("exit code of diglett-server", "Exit codes of diglett-server")
        case .link: ("code of the link, in logs and events", "Codes of the link, in logs and events")
        }
    }

    private static func left(_ text: String, _ width: Int) -> String {
        text + String(repeating: " ", count: max(0, width - text.count))
    }

    private static func right(_ number: Int, _ width: Int) -> String {
        let text = String(number)
        return String(repeating: " ", count: max(0, width - text.count)) + text
    }

    /// All details of the given codes.
    package static func detail(_ explanations: [Explanation]) -> String {
        explanations.map { one in
            let related = one.related.map { "\($0.number) \($0.slug)" }.joined(separator: ", ")
            var parts = [("Meaning", one.meaning), ("Where", one.place), ("What to do", one.advice)]
            if !related.isEmpty {
                parts.append(one.kind == .link ? ("Ends diglett", "with \(related)") : ("Caused by", related))
            }
            return "\(one.number) \(one.slug) (\(self.heading(of: one.kind).one))\n"
                + parts.map { self.paragraph($0.0, $0.1) }.joined()
        }.joined(separator: "\n")
    }

    /// A label followed by a text that is wrapped to the width of the page.
    private static func paragraph(_ label: String, _ text: String) -> String {
        let indent = 16
        var lines = [self.left("  \(label):", indent - 1)]
        var isFirst = true
        for word in text.split(separator: " ") {
            if !isFirst, lines[lines.count - 1].count + 1 + word.count > self.width {
                lines.append(String(repeating: " ", count: indent - 1))
            }
            lines[lines.count - 1] += " \(word)"
            isFirst = false
        }
        return lines.joined(separator: "\n") + "\n"
    }

    /// One line for each code.
    package static let list =
        Explanation.Kind.allCases.map { kind in
            let entries = Explanations.all.filter { $0.kind == kind }
            let width = entries.map(\.slug.count).max() ?? 0
            return Self.heading(of: kind).all + "\n"
                + entries.map { "  \(Self.right($0.number, 3))  \(Self.left($0.slug, width))  \($0.meaning)\n" }
                .joined()
        }.joined(separator: "\n")
            + """

            Exit code 1: the system lacks something to start with, file descriptors for instance; the message says what.
            Exit codes above 128 are a shell's for a program that a signal ended: 137 is SIGKILL (9), as when memory runs out.

            'explain CODE', a number or a name, says what to do.

            """

    /// The content of `docs/errors.md`.
    package static let markdown =
        """
        # Codes

        <!-- Made of Sources/Explain by 'diglett-server explain --markdown', and held to it by a test. -->

        `diglett explain CODE` and `diglett-server explain CODE` print what stands here, by number or name; without CODE they list all codes.

        ## diglett

        Exit codes. With `--output json` the last event, `refused`, has number and name.

        \(Self.table(.agentExit))
        A name that was registered before and is refused later, after a reconnect, does not end the agent: it asks again every 30 s.

        ## diglett-server

        Exit codes, of the gateway and of its commands.

        \(Self.table(.gatewayExit))
        Both programs end with 1 when the system lacks something to start with, file descriptors for instance; the message says what. Codes above 128 are a shell's for a program that a signal ended: 137 is SIGKILL (9), as when memory runs out.

        ## The link

        Codes that travel between the two programs and stand in their logs and events; [protocol.md](protocol.md#codes) is normative. A code that a program does not know is shown as `code-N`.

        \(Self.table(.link))
        """

    private static func table(_ kind: Explanation.Kind) -> String {
        let hasExit = kind == .link
        var lines = ["| code | name | meaning | where | what to do |" + (hasExit ? " ends diglett with |" : "")]
        lines.append("|---|---|---|---|---|" + (hasExit ? "---|" : ""))
        for one in Explanations.all where one.kind == kind {
            let cells = [String(one.number), one.slug, one.meaning, one.place, one.advice]
            let exit = one.related.first.map { String($0.number) } ?? "–"
            lines.append("| \(cells.joined(separator: " | ")) |" + (hasExit ? " \(exit) |" : ""))
        }
        return lines.joined(separator: "\n") + "\n"
    }
}
