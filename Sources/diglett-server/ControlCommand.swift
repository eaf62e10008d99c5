import ArgumentParser
import Console
import Control
import Gateway
import Settings

/// `diglett-server ctl ...`
struct ControlCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ctl",
        abstract: "Inspects and controls the running gateway.",
        discussion: """
            Uses the gateway's unix socket in its runtime or state directory. Any user who may use the socket may run all \
            these commands. --state-dir, --config and --control select the gateway; for root, the default is the service \
            with its /etc/diglett-server/diglett-server.toml.

            Exit codes: 0 done, 1 the gateway refused, 64 bad argument, 69 no gateway answers, 74 the output \
            cannot be written, 78 bad configuration.
            """,
        subcommands: [
            Status.self, Agents.self, Exposures.self, Streams.self, Penalties.self, Bans.self, Kick.self, Ban.self,
            Unban.self, Drain.self, Reload.self, LogLevel.self,
        ])

    enum Output: String, ExpressibleByArgument, CaseIterable { case text, json }

    struct OutputOption: ParsableArguments {
        @Option(help: ArgumentHelp("Output format: text, or json for programs.", valueName: "text|json"))
        var output: Output = .text
    }

    /// Sends requests to the gateway that the options select.
    struct Asker {
        let options: CommandOptions

        /// Runs `body` with a client. Reports errors, and throws the exit code for them.
        func run(_ body: (ControlClient) throws -> Void) throws {
            let found = try self.places()
            if let given = found.given, !given.hasPrefix("/") { throw self.unusable(given) }
            let places = found.paths
            let path = places.first { ControlClient.isThere($0) } ?? places[0]
            do { try body(ControlClient(path: path)) } catch let error as ControlError {
                switch error {
                case .refused(let reason):
                    Complaint.write(reason)
                    throw ExitCode(GatewayError.Kind.refused.rawValue)
                case .denied(let path):
                    Complaint.write(
                        "permission denied for \(path): run this as root or as the gateway's user; 'control-group' in the "
                            + "gateway's configuration allows a group")
                case .garbled: Complaint.write("\(error)")
                case .dead where places.count > 1:
                    Complaint.write(
                        "no gateway answers at \(places.joined(separator: " or ")): check that it runs and that you may use its "
                            + "socket (\(error))")
                case .unreachable: Complaint.write("no answer from the gateway at \(error)")
                case .dead:
                    Complaint.write(
                        "no gateway answers at \(error); check that diglett-server runs, and select it with --state-dir or "
                            + "--config")
                }
                throw ExitCode(GatewayError.Kind.unavailable.rawValue)
            }
        }

        private func places() throws -> ControlSettings.Places {
            let options = self.options.withServiceConfiguration
            do { return try GatewaySettings.controlPlaces(options) } catch {
                for error in error.all { Complaint.write("\(error)") }
                // A running gateway can still answer if its file has an error by now.
                guard self.options.configuration == nil, options.configuration != nil else {
                    throw ExitCode(GatewayError.Kind.configuration.rawValue)
                }
                return try GatewaySettings.controlPlaces(self.options)
            }
        }

        /// Reports why `control` does not lead to a gateway, and returns the exit code.
        private func unusable(_ control: String) -> ExitCode {
            let isOption = !self.options[GatewayKeys.keys.control].isEmpty
            Complaint.write(
                (isOption
                    ? "option --control: " : "\(self.options.withServiceConfiguration.configuration ?? ""): control: ")
                    + (control == "none"
                        ? "this gateway has no control socket: start it without 'none'"
                        : "'\(control)' is not an absolute path: pass the gateway's own"))
            return ExitCode((isOption ? GatewayError.Kind.usage : .configuration).rawValue)
        }

        func ask<Report: Codable>(
            _ request: ControlRequest, _ output: Output, text: (Report) -> String
        ) throws {
            try self.run { client in
                let report = try client.ask(request, Report.self)
                try StandardOutput.write(line: output == .json ? try ControlText.json(report) : text(report))
            }
        }

        /// Sends a command that changes something.
        func tell(_ request: ControlRequest, _ output: Output = .text) throws {
            try self.run { client in
                let report = try client.ask(request, ControlNotes.self)
                try StandardOutput.write(
                    output == .json
                        ? try ControlText.json(report) + "\n" : report.notes.map { "\($0)\n" }.joined())
            }
        }
    }

    struct Status: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Shows the gateway's version, addresses and load.")
        @OptionGroup var output: OutputOption
        @ParentCommand var control: ControlCommand

        func run() throws {
            try self.control.asker.ask(ControlRequest(.status), self.output.output) { ControlText.status($0) }
        }
    }

    struct Agents: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Lists the links of agents.")
        @OptionGroup var output: OutputOption
        @ParentCommand var control: ControlCommand

        func run() throws {
            try self.control.asker.ask(ControlRequest(.agents), self.output.output) { ControlText.agents($0) }
        }
    }

    struct Exposures: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Lists the names and their public addresses.")
        @OptionGroup var output: OutputOption
        @ParentCommand var control: ControlCommand

        func run() throws {
            try self.control.asker.ask(ControlRequest(.exposures), self.output.output) { ControlText.exposures($0) }
        }
    }

    struct Streams: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Lists the visitors' connections.")
        @Flag(help: "Keep running and report each stream that opens or closes.")
        var watch = false
        @OptionGroup var output: OutputOption
        @ParentCommand var control: ControlCommand

        func run() throws {
            var request = ControlRequest(.streams)
            guard self.watch else {
                return try self.control.asker.ask(request, self.output.output) { ControlText.streams($0) }
            }
            request.watch = true
            try self.control.asker.run { client in
                var failure: OutputError?
                try client.watch(request, StreamNews.self) { news in
                    let line =
                        self.output.output == .json
                        ? (try? ControlText.json(news, isPretty: false)) ?? "" : ControlText.line(news)
                    do throws(OutputError) { try StandardOutput.write(line: line) } catch { failure = error }
                    return failure == nil
                }
                if let failure { throw failure }
            }
        }
    }

    struct Penalties: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Lists the sources that are throttled after failed attempts.")
        @OptionGroup var output: OutputOption
        @ParentCommand var control: ControlCommand

        func run() throws {
            try self.control.asker.ask(ControlRequest(.penalties), self.output.output) {
                ControlText.bars($0, empty: "no sources are throttled")
            }
        }
    }

    struct Bans: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Lists the banned networks.")
        @OptionGroup var output: OutputOption
        @ParentCommand var control: ControlCommand

        func run() throws {
            try self.control.asker.ask(ControlRequest(.bans), self.output.output) {
                ControlText.bars($0, empty: "no networks are banned")
            }
        }
    }

    struct Kick: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Closes an agent's links.",
            discussion: "The agent reconnects. To keep it out, use 'diglett-server agent remove' or 'ctl ban'.")
        @Argument(help: "The name of an agent, for all its links, or the number of a link.")
        var target: String
        @ParentCommand var control: ControlCommand

        func run() throws {
            var request = ControlRequest(.kick)
            request.target = self.target
            try self.control.asker.tell(request)
        }
    }

    struct Ban: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Refuses agents and visitors of a network and closes their connections.",
            discussion: "The ban ends with 'ctl unban', or when the gateway stops.")
        @Argument(help: "An address or a network: 192.0.2.1, 192.0.2.0/24, 2001:db8::/32.")
        var network: String
        @Option(
            name: .customLong("for"),
            help: ArgumentHelp("The duration. (default: until the gateway stops)", valueName: "90d|12h|30m|45s"))
        var span: String?
        @ParentCommand var control: ControlCommand

        // Errors thrown here are shown with this command's usage, not the program's.
        func validate() throws {
            guard let span = self.span, Timestamp.span(span) == nil else { return }
            throw ValidationError("option --for: '\(span)' is not a duration: write 90d, 12h, 30m or 45s")
        }

        func run() throws {
            var request = ControlRequest(.ban)
            request.target = self.network
            request.seconds = self.span.flatMap { Timestamp.span($0) }.map { Int($0) }
            try self.control.asker.tell(request)
        }
    }

    struct Unban: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Lifts a ban and forgets the penalties of the network.")
        @Argument(help: "The address or network.")
        var network: String
        @ParentCommand var control: ControlCommand

        func run() throws {
            var request = ControlRequest(.unban)
            request.target = self.network
            try self.control.asker.tell(request)
        }
    }

    struct Drain: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Stops the gateway gracefully, as SIGTERM does: open streams may finish.")
        @ParentCommand var control: ControlCommand

        func run() throws { try self.control.asker.tell(ControlRequest(.drain)) }
    }

    struct Reload: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Reloads agents and certificate, as SIGHUP does, and shows the changes.")
        @Flag(help: "Show the changes without applying them.")
        var dryRun = false
        @OptionGroup var output: OutputOption
        @ParentCommand var control: ControlCommand

        func run() throws {
            var request = ControlRequest(.reload)
            request.dryRun = self.dryRun
            try self.control.asker.tell(request, self.output.output)
        }
    }

    struct LogLevel: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Changes the log level until the gateway stops.")

        enum Level: String, ExpressibleByArgument, CaseIterable { case info, debug, trace }

        @Argument(help: "The level.")
        var level: Level
        @ParentCommand var control: ControlCommand

        func run() throws {
            var request = ControlRequest(.logLevel)
            request.target = self.level.rawValue
            try self.control.asker.tell(request)
        }
    }

    @ParentCommand var server: DiglettServer

    var asker: Asker { Asker(options: self.server.options) }
}
