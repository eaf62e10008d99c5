package import ArgumentParser
internal import Suggestions

/// Errors of the parser about a word or an option that it does not know, with the word that was probably meant.
package struct Typos {
    let root: any ParsableCommand.Type
    /// What was typed after the program's name.
    let arguments: [String]

    /// The parser's message in other words, or the message itself.
    ///
    /// - Parameter message: the error, then lines about usage.
    func improved(_ message: String) -> String {
        let text = self.explained(message)
        // The parser writes sentences.
        return text.prefix(1).lowercased() + text.dropFirst()
    }

    private func explained(_ message: String) -> String {
        let lines = message.split(separator: "\n", omittingEmptySubsequences: false)
        guard let first = lines.first.map(String.init) else { return message }
        let rest = lines.dropFirst().map { "\n\($0)" }.joined()
        if let option = self.quoted(in: first, after: "Unknown option ") {
            return "unknown option '\(option)'\(self.question(about: option, first))" + rest
        }
        guard let word = self.quoted(in: first, after: "Unexpected argument ") ?? self.firstOfSeveral(first) else {
            return message
        }
        let commands = self.commands(insteadOf: word)
        // Subcommands that are parsed alone are never after other words.
        guard commands.values.contains(where: { $0.configuration._superCommandName == nil }) else { return message }
        return Self.unknown(word, among: commands) + rest
    }

    /// The parser proposes an option however little it resembles what was typed.
    private func question(about option: String, _ line: String) -> String {
        guard let proposed = self.quoted(in: line, after: "Did you mean ") else { return "" }
        func bare(_ text: String) -> String { String(text.drop { $0 == "-" }) }
        return Suggestion.near(bare(option), among: [bare(proposed)]).isEmpty ? "" : "; did you mean '\(proposed)'?"
    }

    /// `a` of `3 unexpected arguments: 'a', 'b', 'c'`.
    private func firstOfSeveral(_ line: String) -> String? {
        line.contains(" unexpected arguments: ") ? self.quoted(in: line, after: "unexpected arguments: ") : nil
    }

    private func quoted(in line: String, after prefix: String) -> String? {
        guard let start = line.firstRange(of: prefix + "'") else { return nil }
        let text = line[start.upperBound...].prefix { $0 != "'" }
        return text.isEmpty ? nil : String(text)
    }

    /// The commands that could have been typed instead of `word`: those of the last command before it.
    private func commands(insteadOf word: String) -> [String: any ParsableCommand.Type] {
        var command = self.root
        let tables = (self.root as? any Daemon.Type)?.keyTables ?? []
        for text in ArgumentScanner(self.arguments, tables).words {
            guard let next = command.subcommands[text] else {
                if text == word { break }
                continue
            }
            command = next
        }
        return command.subcommands
    }

    /// The error for a word that is not a command. A command one level below may be meant, `ctl status` for `status`.
    package static func unknown(_ word: String, among commands: [String: any ParsableCommand.Type]) -> String {
        var question = Suggestion.question(about: word, among: commands.keys)
        if question.isEmpty {
            let below = commands.filter { $0.value.subcommands[word] != nil }.map { "\($0.key) \(word)" }.sorted()
            if let first = below.first { question = "; did you mean '\(first)'?" }
        }
        return "unknown command '\(word)'\(question)"
    }
}

extension ParsableCommand {
    /// By the names under which they are typed.
    package static var subcommands: [String: any ParsableCommand.Type] {
        Dictionary(
            uniqueKeysWithValues: self.configuration.subcommands.map { ($0._commandName, $0) })
    }
}
