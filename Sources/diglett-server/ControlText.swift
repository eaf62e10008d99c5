import Console
import Control
import FoundationEssentials
import Journal

/// Formats a gateway's reports for people and for programs.
enum ControlText {
    static func json(_ report: some Encodable, isPretty: Bool = true) throws -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        if isPretty { encoder.outputFormatting.insert(.prettyPrinted) }
        return String(decoding: try encoder.encode(report), as: UTF8.self)
    }

    static func status(_ report: GatewayReport) -> String {
        var lines = [
            "\(report.version), process \(report.process), \(report.state) for \(self.span(report.seconds))",
            "listening for agents on \(report.listening.isEmpty ? "nothing" : report.listening.joined(separator: ", "))",
            "pin \(report.pin)",
        ]
        if let certificate = report.certificate {
            lines.append("certificate\(certificate.file.map { " \($0)" } ?? ""): valid until \(certificate.expires)")
            lines += [certificate.warning, certificate.failure].compactMap(\.self).map { "warning: \($0)" }
        }
        lines += [
            "agents: \(report.authentication)",
            "\(counted(report.agents, "agent")) with \(counted(report.links, "link")), "
                + "\(counted(report.names, "name")), \(counted(report.streams, "stream")), "
                + counted(report.visitors, "visitor"),
            "log level \(report.logLevel)",
        ]
        for registrar in report.registrars {
            var line = "registrar \(registrar.name): \(registrar.failure ?? "works")"
            if registrar.pending > 0 { line += " (\(counted(registrar.pending, "name")) pending)" }
            lines.append(line)
        }
        return lines.joined(separator: "\n")
    }

    static func agents(_ reports: [LinkReport]) -> String {
        guard !reports.isEmpty else { return "no agents connected" }
        var table = TextTable(["LINK", "AGENT", "ADDRESS", "VERSION", "SINCE", "STREAMS", "NAMES"])
        for report in reports {
            let place = report.away.map { "\(report.peer), away for \(self.span($0))" } ?? report.peer
            table.add([
                "\(report.link)", report.agent, place, "\(report.protocol)", self.span(report.seconds),
                "\(report.streams)", report.names.joined(separator: " "),
            ])
        }
        return table.text
    }

    static func exposures(_ reports: [ExposureReport]) -> String {
        guard !reports.isEmpty else { return "no names registered" }
        var table = TextTable(["NAME", "AGENT", "LINK", "SINCE", "STREAMS", "STATE", "PUBLIC ADDRESS"])
        for report in reports {
            let places = [report.address, report.socket.map { "unix:\($0)" }].compactMap(\.self)
            table.add([
                report.name, report.agent, "\(report.link)", self.span(report.seconds), "\(report.streams)",
                report.published ? "published" : "waiting", places.joined(separator: " "),
            ])
        }
        return table.text
    }

    static func streams(_ reports: [StreamReport]) -> String {
        guard !reports.isEmpty else { return "no visitors connected" }
        var table = TextTable(["NAME", "VISITOR", "AGENT", "SINCE", "TO BACKEND", "TO VISITOR"])
        for report in reports {
            table.add([
                report.name, report.visitor ?? "unknown", report.agent, self.span(Int(report.seconds)),
                self.size(report.bytesToBackend), self.size(report.bytesToVisitor),
            ])
        }
        return table.text
    }

    /// Formats one event of a watch.
    static func line(_ news: StreamNews) -> String {
        let stream = news.stream
        let who = "\(stream.name) \(stream.visitor ?? "unknown visitor") at \(stream.agent)"
        switch news.event {
        case .running: return "= \(who), for \(self.span(Int(stream.seconds)))"
        case .opened: return "+ \(who)"
        case .closed:
            return
                "- \(who), after \(self.span(Int(stream.seconds))), \(self.size(stream.bytesToBackend)) to the backend, "
                + "\(self.size(stream.bytesToVisitor)) to the visitor: \(news.reason ?? "")"
        }
    }

    static func bars(_ reports: [BarReport], empty: String) -> String {
        guard !reports.isEmpty else { return empty }
        var table = TextTable(["NETWORK", "REMAINING"])
        for report in reports { table.add([report.network, report.seconds.map { self.span($0) } ?? "permanent"]) }
        return table.text
    }

    /// A duration as `3d 4h`, `2h 5m`, `7m 10s` or `12s`.
    static func span(_ seconds: Int) -> String {
        let parts = [
            (seconds / 86_400, "d"), (seconds / 3_600 % 24, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s"),
        ]
        guard let first = parts.firstIndex(where: { $0.0 > 0 }) else { return "0s" }
        return parts[first...].prefix(2).filter { $0.0 > 0 }.map { "\($0.0)\($0.1)" }.joined(separator: " ")
    }

    /// A size in powers of 1,024 (IEC 80000-13).
    static func size(_ bytes: UInt64) -> String {
        var value = Double(bytes)
        for unit in ["B", "KiB", "MiB", "GiB"] {
            if value < 1_024 { return unit == "B" ? "\(bytes) B" : "\((value * 10).rounded() / 10) \(unit)" }
            value /= 1_024
        }
        return "\((value * 10).rounded() / 10) TiB"
    }
}
