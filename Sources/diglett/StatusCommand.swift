import AgentCore
import ArgumentParser
import Console
import Control
import FoundationEssentials
import Journal
import Settings

/// `diglett status`
struct StatusCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "status",
        _superCommandName: "diglett",
        abstract: "Reports the state of the running agents.",
        discussion: """
            Lists the agents that use the state directory. Exit codes: 0 all names are reachable, 1 some are not, 64 bad \
            argument, 69 no agent runs, 74 the output cannot be written, 78 bad configuration.
            """,
        version: Diglett.configuration.version)

    enum Output: String, ExpressibleByArgument, CaseIterable { case text, json }

    @Option(
        help: ArgumentHelp(
            "The agents' state directory, or the parent directory of several. (default: below ~/.local/state, for root /var/lib/diglett)",
            valueName: "dir"),
        completion: .directory)
    var stateDir: String?

    @Option(help: ArgumentHelp("Output format: text, or json for programs.", valueName: "text|json"))
    var output: Output = .text

    func run() throws {
        let directory: String
        do { directory = try StateDirectory.path(self.stateDir, program: "diglett") } catch {
            Complaint.write("\(error)")
            throw ExitCode(ExitReason.configuration.rawValue)
        }
        var reports: [AgentReport] = []
        var isComplete = true
        let places: [String]
        do throws(ControlError) { places = try ControlPlaces.all(in: directory) } catch {
            Complaint.write("cannot read the state directory: \(error)")
            throw ExitCode(ExitReason.configuration.rawValue)
        }
        for path in places {
            do throws(ControlError) {
                reports.append(try ControlClient(path: path).ask(ControlRequest(.status), AgentReport.self))
            } catch {
                // An agent that has ended is not an error.
                if case .dead = error { continue }
                Complaint.write("an agent does not respond: \(error)")
                isComplete = false
            }
        }
        guard !reports.isEmpty else {
            guard isComplete else { throw ExitCode(ExitReason.unreachable.rawValue) }
            Complaint.write("no running agent uses the state directory \(directory)")
            throw ExitCode(ExitReason.unavailable.rawValue)
        }
        try StandardOutput.write(line: self.output == .json ? try Self.json(reports) : Self.text(reports))
        guard isComplete, reports.allSatisfy({ $0.names.allSatisfy(\.reachable) }) else {
            throw ExitCode(ExitReason.unreachable.rawValue)
        }
    }

    private static func json(_ reports: [AgentReport]) throws -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        return String(decoding: try encoder.encode(reports), as: UTF8.self)
    }

    private static func text(_ reports: [AgentReport]) -> String {
        reports.map { report in
            var table = TextTable(["NAME", "REACHABLE AT", "BACKEND"])
            for name in report.names {
                let place = name.reachable ? name.address ?? "see the gateway's log" : "not reachable"
                table.add([name.name, name.reason.map { "\(place): \($0)" } ?? place, name.backend])
            }
            return "process \(report.process): \(report.state), \(counted(report.streams, "stream"))\n" + table.text
        }.joined(separator: "\n\n")
    }
}
