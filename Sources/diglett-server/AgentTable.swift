import Console
import FoundationEssentials
import Settings

/// Formats agents for people and for programs.
enum AgentTable {
    static func text(_ agents: [AgentEntry]) -> String {
        guard !agents.isEmpty else {
            return "no agents yet: add one with 'diglett-server agent add NAME --names PATTERN'"
        }
        let now = Timestamp.now
        var table = TextTable(["NAME", "LOGS IN WITH", "NAMES", "PORTS", "EXPIRES", "STATE"])
        for agent in agents {
            var known: [String] = []
            if agent.tokenHash != nil { known.append("token") }
            if agent.version1TokenHash != nil { known.append("v1 token") }
            if let until = Self.formerTokenUntil(agent, now) { known.append("former token until \(until)") }
            if !agent.pins.isEmpty { known.append(agent.pins.count == 1 ? "key" : "\(agent.pins.count) keys") }
            table.add([
                agent.name, known.isEmpty ? "nothing" : known.joined(separator: ", "),
                agent.names.map(\.text).joined(separator: ", "),
                agent.ports.isEmpty ? "any" : agent.ports.map(\.description).joined(separator: ", "),
                agent.expires.map { Timestamp.text($0) } ?? "never",
                agent.isDisabled ? "disabled" : agent.isExpired(at: now) ? "expired" : "active",
            ])
        }
        return table.text
    }

    /// Nil if no former token is valid.
    private static func formerTokenUntil(_ agent: AgentEntry, _ now: Int64) -> String? {
        agent.takesFormerTokens(at: now) ? agent.formerTokenUntil.map { Timestamp.text($0) } : nil
    }

    private struct Line: Encodable {
        let name: String
        let token: Bool
        let version1Token: Bool
        let formerTokenUntil: String?
        let pins: [String]
        let names: [String]
        let ports: [String]
        let expires: String?
        let disabled: Bool
        let expired: Bool

        private enum CodingKeys: String, CodingKey {
            case name, token
            case version1Token = "v1-token"
            case formerTokenUntil = "former-token-until"
            case pins, names, ports, expires, disabled, expired
        }
    }

    /// Shows whether there are tokens, but never the tokens or their hashes.
    static func json(_ agents: [AgentEntry]) throws -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        let now = Timestamp.now
        let lines = agents.map {
            Line(
                name: $0.name, token: $0.tokenHash != nil, version1Token: $0.version1TokenHash != nil,
                formerTokenUntil: Self.formerTokenUntil($0, now), pins: $0.pins, names: $0.names.map(\.text),
                ports: $0.ports.map(\.description),
                expires: $0.expires.map { Timestamp.text($0) }, disabled: $0.isDisabled,
                expired: $0.isExpired(at: now))
        }
        return String(decoding: try encoder.encode(["agents": lines]), as: UTF8.self)
    }
}
