import ArgumentParser
import Console
import Settings

/// Words on the command line that are meant as commands, but that the parser would take for the backend.
enum CommandWord {
    /// Commands of the other program.
    private static let ofGateway = ["agent", "ctl"]

    /// The error about a first word that is not a command.
    ///
    /// - Parameter arguments: what was typed after the program's name.
    static func error(in arguments: [String]) -> String? {
        let commands = Diglett.subcommands
        guard let first = arguments.first, commands[first] == nil, !["help", "version"].contains(first) else {
            return nil
        }
        guard !first.hasPrefix("-"), self.isWord(first) else { return nil }
        if self.ofGateway.contains(first) {
            return "unknown command '\(first)'; did you mean 'diglett-server \(first)'?"
        }
        let error = Typos.unknown(first, among: commands)
        let hasOptions = arguments.contains { $0.hasPrefix("-") }
        return hasOptions && !error.hasSuffix("?") ? nil : error
    }

    /// The error about a command that is not the first word; nil for any other backend.
    static func error(inBackend text: String) -> String? {
        guard Diglett.subcommands[text] != nil else { return nil }
        return "the command '\(text)' must come first: diglett \(text) ..."
    }

    /// Whether a text can be a command and not a backend, which has a port or a path.
    private static func isWord(_ text: String) -> Bool {
        !text.isEmpty && text.utf8.allSatisfy { (0x61...0x7A).contains($0) || $0 == UInt8(ascii: "-") }
    }
}
