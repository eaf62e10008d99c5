internal import FoundationEssentials
internal import Wire

/// A request to a running program over its control socket: one JSON object, on one line.
package struct ControlRequest: Codable, Equatable, Sendable {
    package static let version = 1

    package enum Command: String, Codable, Sendable, CaseIterable {
        case status, agents, exposures, streams, penalties, bans
        case kick, ban, unban, drain, reload
        case logLevel = "log-level"
    }

    package let version: Int
    package let command: Command
    /// What the command applies to: an agent or the number of a link, a network, or a log level.
    package var target: String?
    /// Duration of the command's effect in seconds.
    package var seconds: Int?
    /// Whether to keep sending changes until the connection is closed.
    package var watch: Bool?
    /// Whether to report the changes only, without making them.
    package var dryRun: Bool?

    package init(_ command: Command) {
        self.version = Self.version
        self.command = command
    }

    private enum CodingKeys: String, CodingKey, CaseIterable {
        case version, command, target, seconds, watch
        case dryRun = "dry-run"
    }

    /// An unknown field. Ignoring it would be dangerous: with a misspelt `dry-run`, the changes would be made.
    struct UnknownField: Error { let name: String }

    package init(from decoder: any Decoder) throws {
        if let name = try unknownField(in: decoder, known: CodingKeys.allCases.map(\.rawValue)) {
            throw UnknownField(name: name)
        }
        let fields = try decoder.container(keyedBy: CodingKeys.self)
        self.version = try fields.decode(Int.self, forKey: .version)
        self.command = try fields.decode(Command.self, forKey: .command)
        self.target = try fields.decodeIfPresent(String.self, forKey: .target)
        self.seconds = try fields.decodeIfPresent(Int.self, forKey: .seconds)
        self.watch = try fields.decodeIfPresent(Bool.self, forKey: .watch)
        self.dryRun = try fields.decodeIfPresent(Bool.self, forKey: .dryRun)
    }
}

extension ControlRequest {
    /// Why a line is not a valid request, as a text for the caller.
    package struct Fault: Error, Equatable, CustomStringConvertible {
        package let description: String
    }

    /// Parses one line, without its line feed. The version is checked first: the fields of other versions are unknown.
    package static func parse(_ line: [UInt8]) -> Result<ControlRequest, Fault> {
        struct Version: Decodable { let version: Int }
        let decoder = JSONDecoder()
        let data = Data(line)
        if let version = try? decoder.decode(Version.self, from: data), version.version != ControlRequest.version {
            return .failure(Fault(description: "unknown version \(version.version) of the control protocol"))
        }
        do { return .success(try decoder.decode(ControlRequest.self, from: data)) } catch let field as UnknownField {
            return .failure(Fault(description: "unknown field in the request: '\(PeerText.escaped(field.name))'"))
        } catch {
            return .failure(Fault(description: "the request is not valid JSON of this protocol"))
        }
    }
}

/// An answer, on one line; with `watch`, one of many.
package struct ControlReply<Result: Codable>: Codable {
    package let ok: Bool
    package let error: String?
    package let result: Result?

    init(_ result: Result) {
        self.ok = true
        self.error = nil
        self.result = result
    }
}

/// An answer that is decoded for a failure only.
struct ControlFailure: Codable {
    let ok: Bool
    let error: String?

    init(_ error: String) {
        self.ok = false
        self.error = error
    }
}

/// The effects of a command, as text for people.
package struct ControlNotes: Codable, Equatable, Sendable {
    package let notes: [String]

    package init(_ notes: [String]) { self.notes = notes }
}
