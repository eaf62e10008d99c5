import ArgumentParser
import Settings
import Testing

@testable import Console

/// A program with commands on two levels, and an option.
private struct Tool: ParsableCommand {
    struct Control: ParsableCommand {
        struct Status: ParsableCommand {}
        struct Reload: ParsableCommand {}

        static let configuration = CommandConfiguration(
            commandName: "ctl", subcommands: [Status.self, Reload.self])
    }

    /// A command that is parsed alone, as those of `diglett` are.
    struct Alone: ParsableCommand {
        static let configuration = CommandConfiguration(commandName: "alone", _superCommandName: "tool")
    }

    struct Check: ParsableCommand {
        @Option var output: String?
    }

    static let configuration = CommandConfiguration(
        commandName: "tool", subcommands: [Control.self, Check.self])

    @Flag var once = false
}

@Suite("An error about the command line")
struct CommandLineTests {
    @Test(
        "reports the first option that was given twice but has one value",
        arguments: [
            ([], nil), (["-g", "a", "-n", "b", "9000"], nil),
            (["-g", "a", "-g", "b"], "option --gateway: may be given only once"),
            (["-g", "a", "--gateway", "b"], "option --gateway: may be given only once"),
            (["--gateway=a", "--gateway=b"], "option --gateway: may be given only once"),
            (["-dg", "a", "-dg", "b"], "option --gateway: may be given only once"),
            (
                ["--state-dir", "a", "--state-dir=b", "-g", "a", "-g", "b"],
                "option --state-dir: may be given only once"
            ),
            (["-c", "a", "--config", "b"], "option --config: may be given only once"),
            (["--output", "json", "--output", "text"], "option --output: may be given only once"),
            // Options that may be repeated, switches, values that resemble options, and arguments after `--`.
            (["-n", "a=1", "-n", "b=2", "--pin", "x", "--pin", "y"], nil),
            (["--once", "--once", "-d", "-d", "-dd"], nil),
            (["--state-dir", "-g", "-g", "a"], nil), (["-g", "a", "--", "-g", "b"], nil),
        ] as [([String], String?)])
    func repeated(_ arguments: [String], _ expected: String?) {
        #expect(RepeatedOptions.error(in: arguments, KeyTables.ofAgent) == expected)
    }

    /// The text that the parser and ``Typos`` make of a command line; the first line, without `Error: `.
    private func improved(_ arguments: [String]) -> String {
        do {
            _ = try Tool.parseAsRoot(arguments)
            return "accepted"
        } catch {
            let message = Tool.fullMessage(for: error)
            let text = message.hasPrefix("Error: ") ? String(message.dropFirst(7)) : message
            let improved = Typos(root: Tool.self, arguments: arguments).improved(text)
            // The lines about usage stay.
            #expect(
                improved.split(separator: "\n", omittingEmptySubsequences: false).dropFirst()
                    == text.split(separator: "\n", omittingEmptySubsequences: false).dropFirst())
            return String(improved.prefix { $0 != "\n" })
        }
    }

    @Test(
        "contains the command or option that was probably meant",
        arguments: [
            (["ctll"], "unknown command 'ctll'; did you mean 'ctl'?"),
            (["ctl", "sttaus"], "unknown command 'sttaus'; did you mean 'status'?"),
            (["status"], "unknown command 'status'; did you mean 'ctl status'?"),
            (["frobnicate"], "unknown command 'frobnicate'"),
            (["ctl", "frobnicate"], "unknown command 'frobnicate'"),
            (["chekc", "a", "b"], "unknown command 'chekc'; did you mean 'check'?"),
            (["--onec"], "unknown option '--onec'; did you mean '--once'?"),
            (["--frobnicate"], "unknown option '--frobnicate'"),
            (["check", "--outptu", "x"], "unknown option '--outptu'; did you mean '--output'?"),
            // Another argument of a command without commands.
            (["check", "x"], "unexpected argument 'x'"),
        ])
    func typos(_ arguments: [String], _ expected: String) {
        #expect(self.improved(arguments) == expected)
    }

    @Test("only begins with a small letter if no word is unknown")
    func others() {
        let message = "missing value for '--output <output>'\nUsage: tool check\n"
        #expect(
            Typos(root: Tool.self, arguments: ["check", "--output"]).improved("M\(message.dropFirst())") == message)
        #expect(Typos(root: Tool.self, arguments: []).improved("").isEmpty)
    }

    @Test("about an unknown command searches the commands one level below")
    func unknown() {
        let commands = Tool.subcommands
        #expect(commands.keys.sorted() == ["check", "ctl"])
        #expect(Typos.unknown("reload", among: commands) == "unknown command 'reload'; did you mean 'ctl reload'?")
        #expect(Typos.unknown("chck", among: commands) == "unknown command 'chck'; did you mean 'check'?")
        #expect(Typos.unknown("x", among: commands) == "unknown command 'x'")
    }
}
