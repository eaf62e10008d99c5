import ArgumentParser
import Console
import Control
import Gateway
import Settings

/// `diglett-server ctl ...`
struct ControlCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ctl",
        abstract: "Looks at the running gateway, and steers it.",
        discussion: """
            The gateway answers on a unix socket in its runtime directory, or else in its state directory: those who may \
            use the socket may do all of this. The gateway's options (--state-dir, --config, --control) tell which \
            gateway is meant; root without them means the service, with its /etc/diglett-server/diglett-server.toml.

            Exit codes: 0 done, 1 the gateway says no, 64 bad argument, 69 no gateway answers, 74 the output \
            cannot be written, 78 bad configuration.
            """,
        subcommands: [
            Status.self, Agents.self, Exposures.self, Streams.self, Penalties.self, Bans.self, Kick.self, Ban.self,
            Unban.self, Drain.self, Reload.self, LogLevel.self,
        ])

    enum Output: String, ExpressibleByArgument, CaseIterable { case text, json }

    struct OutputOption: ParsableArguments {
        @Option(help: ArgumentHelp("What to print: text, or json for programs.", valueName: "text|json"))
        var output: Output = .text
    }

    /// Asks the gateway that the options name.
    struct Asker {
        let options: CommandOptions

        /// Runs `body` with a client, and turns what goes wrong into a message and an exit code.
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
                case .garbled: Complaint.write("\(error)")
                case .dead where places.count > 1:
                    Complaint.write(
                        "no gateway answers at \(places.joined(separator: " or ")): is it running, and may you use its "
                            + "socket? (\(error))")
                case .unreachable, .dead: Complaint.write("no gateway answers at \(error)")
                }
                throw ExitCode(GatewayError.Kind.unavailable.rawValue)
            }
        }

        private func places() throws -> ControlSettings.Places {
            let options = self.options.withServiceConfiguration
            do { return try GatewaySettings.controlPlaces(options) } catch {
                for error in error.all { Complaint.write("\(error)") }
                // A running gateway can be asked although its file has a mistake by now.
                guard self.options.configuration == nil, options.configuration != nil else {
                    throw ExitCode(GatewayError.Kind.configuration.rawValue)
                }
                return try GatewaySettings.controlPlaces(self.options)
            }
        }

        /// Says why a `control` leads to no gateway; returns how to end.
        private func unusable(_ control: String) -> ExitCode {
            let isOption = !self.options[GatewayKeys.keys.control].isEmpty
            Complaint.write(
                (isOption
                    ? "option --control: " : "\(self.options.withServiceConfiguration.configuration ?? ""): control: ")
                    + (control == "none"
                        ? "a gateway with 'none' has no socket and cannot be asked: start it without"
                        : "'\(control)' is no path that begins with '/': write the gateway's own"))
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

        /// A command that changes something.
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
        static let configuration = CommandConfiguration(abstract: "What the gateway is and does.")
        @OptionGroup var output: OutputOption
        @ParentCommand var control: ControlCommand

        func run() throws {
            try self.control.asker.ask(ControlRequest(.status), self.output.output) { ControlText.status($0) }
        }
    }

    struct Agents: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "The links of agents.")
        @OptionGroup var output: OutputOption
        @ParentCommand var control: ControlCommand

        func run() throws {
            try self.control.asker.ask(ControlRequest(.agents), self.output.output) { ControlText.agents($0) }
        }
    }

    struct Exposures: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "The names, and where visitors come in.")
        @OptionGroup var output: OutputOption
        @ParentCommand var control: ControlCommand

        func run() throws {
            try self.control.asker.ask(ControlRequest(.exposures), self.output.output) { ControlText.exposures($0) }
        }
    }

    struct Streams: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "The visitors' connections.")
        @Flag(help: "Go on and tell of each that is opened or closed, until interrupted.")
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
            abstract: "Sources whose handshakes are delayed after failed attempts.")
        @OptionGroup var output: OutputOption
        @ParentCommand var control: ControlCommand

        func run() throws {
            try self.control.asker.ask(ControlRequest(.penalties), self.output.output) {
                ControlText.bars($0, empty: "nobody has a penalty")
            }
        }
    }

    struct Bans: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Networks that 'ctl ban' keeps out.")
        @OptionGroup var output: OutputOption
        @ParentCommand var control: ControlCommand

        func run() throws {
            try self.control.asker.ask(ControlRequest(.bans), self.output.output) {
                ControlText.bars($0, empty: "nobody is banned")
            }
        }
    }

    struct Kick: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Ends an agent's links.",
            discussion: "The agent comes back; to keep it out, 'diglett-server agent remove' it or ban its address.")
        @Argument(help: "The agent, for all of its links, or the number of a link.")
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
            abstract: "Keeps a network out, agents and visitors, and cuts what it has open.",
            discussion: "Until 'unban', or the end of the gateway.")
        @Argument(help: "An address or a network: 192.0.2.1, 192.0.2.0/24, 2001:db8::/32.")
        var network: String
        @Option(
            name: .customLong("for"),
            help: ArgumentHelp("How long. (default: until the gateway ends)", valueName: "90d|12h|30m|45s"))
        var span: String?
        @ParentCommand var control: ControlCommand

        // What is refused here is told with this command's usage, not the program's.
        func validate() throws {
            guard let span = self.span, Timestamp.span(span) == nil else { return }
            throw ValidationError("--for: '\(span)' is no span of time: write 90d, 12h, 30m or 45s")
        }

        func run() throws {
            var request = ControlRequest(.ban)
            request.target = self.network
            request.seconds = self.span.flatMap { Timestamp.span($0) }.map { Int($0) }
            try self.control.asker.tell(request)
        }
    }

    struct Unban: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Lets a network in again, its penalties forgotten.")
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
            abstract: "Stops the gateway in order, as SIGTERM does: what runs may finish.")
        @ParentCommand var control: ControlCommand

        func run() throws { try self.control.asker.tell(ControlRequest(.drain)) }
    }

    struct Reload: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Reads the agents and the certificate again, as SIGHUP does, and shows what has changed.")
        @Flag(help: "Only say what would change.")
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
            abstract: "Makes the gateway log more or less, until it ends.")

        enum Level: String, ExpressibleByArgument, CaseIterable { case info, debug, trace }

        @Argument(help: "How much.")
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
