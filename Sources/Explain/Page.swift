/// The explanations as text for people: for a terminal, and as `docs/errors.md`.
package enum Page {
    /// Columns of a terminal, minus a margin.
    private static let width = 78

    private static func heading(of kind: Explanation.Kind) -> (one: String, all: String) {
        switch kind {
        case .agentExit: ("exit code of diglett", "Exit codes of diglett")
        case .gatewayExit: ("exit code of diglett-server", "Exit codes of diglett-server")
        case .link: ("link code, in logs and events", "Link codes, in logs and events")
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

            Exit code 1: the program could not start because the system lacks a resource, for example file descriptors.
            Exit codes above 128 come from the shell: a signal ended the program. 137 is SIGKILL (9), for example when memory ran out.

            'explain CODE' (a number or a name) says what to do.

            """

    /// The content of `docs/errors.md`.
    package static let markdown =
        """
        # Codes

        <!-- Written by 'diglett-server explain --markdown' from Sources/Explain; a test compares them. -->

        `diglett explain CODE` and `diglett-server explain CODE` print these entries, by number or name.
        Without CODE they list all codes.

        ## diglett

        Exit codes. With `--output json`, the last event (`refused`) has the number and the name.

        \(Self.table(.agentExit))
        A name that was registered before and is refused after a reconnect does not end the agent. The agent
        requests it again every 30 s.

        ## diglett-server

        Exit codes of the gateway and its commands.

        \(Self.table(.gatewayExit))
        Both programs exit with 1 if they cannot start because the system lacks a resource, for example
        file descriptors. Codes above 128 come from the shell: a signal ended the program. 137 is SIGKILL
        (9), for example when memory ran out.

        ## The link

        Codes that the two programs send each other and show in logs and events;
        [protocol.md](protocol.md#codes) is normative. A program shows a code that it does not know as
        `code-N`.

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
