import Foundation
import Settings
import Testing

/// The tables of docs/configuration.md, each after a line `<!-- keys: NAME -->`.
private struct Document {
    /// Type by key, by the table's name.
    var tables: [String: [String: String]] = [:]

    init() throws {
        let file = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent().appendingPathComponent("docs/configuration.md")
        let parts = try String(contentsOf: file, encoding: .utf8).components(separatedBy: "<!-- keys: ")
        for part in parts.dropFirst() {
            let lines = part.split(separator: "\n")
            let name = lines[0].components(separatedBy: " -->")[0]
            for line in lines.dropFirst().prefix(while: { $0.hasPrefix("|") }).dropFirst(2) {
                let cells = line.split(separator: "|").map { $0.trimmingCharacters(in: .whitespaces) }
                self.tables[name, default: [:]][cells[0].trimmingCharacters(in: ["`"])] = cells[1]
            }
        }
    }

    func keys(_ names: [String]) -> [String: String] {
        names.reduce(into: [:]) { $0.merge(self.tables[$1] ?? [:]) { first, _ in first } }
    }
}

/// A table that a program reads: how to get there, and in which tables of the document its keys are.
struct ConfigurationTable: Sendable, CustomTestStringConvertible {
    enum Reader: Sendable { case gateway, agents, agent }

    let reader: Reader
    /// What stands before the table, its header included.
    let head: String
    /// Keys that must be given, with their values.
    let needed: KeyValuePairs<String, String>
    let documented: [String]

    var testDescription: String { "\(self.documented.joined(separator: " + "))" }

    init(_ reader: Reader, _ head: String = "", _ needed: KeyValuePairs<String, String> = [:], in documented: String...)
    {
        self.reader = reader
        self.head = head
        self.needed = needed
        self.documented = documented
    }

    /// What is found wrong when the table has this key besides, or instead of the needed one.
    ///
    /// - Parameter hasOptions: give all options too that there are on the command line.
    func errors(_ key: String, _ value: String, hasOptions: Bool = false) throws -> [SettingsError] {
        var lines = self.needed.filter { $0.key != key }.map { "\($0.key) = \($0.value)" }
        lines.append("\(key) = \(value)")
        let text = "\(self.head)\n\(lines.joined(separator: "\n"))\n"
        return try withDirectory { directory in
            let path = "\(directory)/file.toml"
            try write(text, path)
            do {
                switch self.reader {
                case .gateway: _ = try GatewaySettings(Self.gateway(path, hasOptions))
                case .agents: _ = try AgentsFile(path: path, text: text)
                case .agent: _ = try AgentSettings(Self.agent(path, hasOptions))
                }
            } catch let errors as SettingsErrors { return errors.all } catch let error as SettingsError {
                return [error]
            }
            return []
        }
    }

    private static func gateway(_ path: String, _ hasOptions: Bool) -> GatewayOptions {
        var options = GatewayOptions()
        options.configuration = path
        guard hasOptions else { return options }
        (options.listen, options.listenVersion1) = (["127.0.0.1:1"], ["127.0.0.1:2"])
        (options.allowsInsecureVersion1, options.debug, options.stateDirectory) = (true, 1, "/x")
        (options.logFormat, options.logsStreams) = ("json", true)
        (options.exposeBind, options.exposePorts, options.acceptProxyProtocol) = (["::"], "1", ["::1"])
        (options.exposeSockets, options.exposeSocketsGroup) = ("/x", "0")
        (options.auth, options.agentsFile, options.tlsCertificate, options.tlsKey) = ("file", "/x", "/x", "/x")
        (options.metrics, options.metricsPerName, options.allowsInsecureMetrics) = ("[::]:1", true, true)
        return options
    }

    private static func agent(_ path: String, _ hasOptions: Bool) -> AgentOptions {
        var options = AgentOptions()
        options.configuration = path
        guard hasOptions else { return options }
        (options.gateway, options.names, options.backend, options.token) = ("x", ["x"], "1", "x")
        (options.pins, options.publicPort, options.proxyProtocol) = (["sha256/x"], "1", "v1")
        (options.output, options.once, options.version1, options.debug) = ("json", true, true, 1)
        (options.tokenFile, options.stateDirectory) = ("/x", "/x")
        (options.logFormat, options.logsStreams) = ("json", true)
        return options
    }

    static let all: [Self] = [
        Self(.gateway, in: "gateway"),
        Self(.gateway, "[limits]", in: "limits"),
        Self(.gateway, "auth = \"exec\"\n[auth-exec]", ["command": "[\"/bin/sh\"]"], in: "exec"),
        Self(.gateway, "auth = \"webhook\"\n[auth-webhook]", ["url": "\"https://x\""], in: "webhook"),
        Self(.gateway, "[[registrar]]", ["kind": "\"print\""], in: "registrar"),
        Self(
            .gateway, "[[registrar]]", ["kind": "\"traefik\"", "domain": "\"example.com\"", "directory": "\"/x\""],
            in: "registrar", "proxy", "traefik"),
        Self(
            .gateway, "[[registrar]]", ["kind": "\"caddy\"", "domain": "\"example.com\""],
            in: "registrar", "proxy", "caddy"),
        Self(
            .gateway, "[[registrar]]",
            [
                "kind": "\"nginx\"", "domain": "\"example.com\"", "file": "\"/x\"", "reload": "[\"/bin/sh\"]",
            ], in: "registrar", "proxy", "map"),
        Self(
            .gateway, "[[registrar]]",
            [
                "kind": "\"haproxy\"", "domain": "\"example.com\"", "file": "\"/x\"", "reload": "[\"/bin/sh\"]",
            ], in: "registrar", "proxy", "map"),
        Self(
            .gateway, "[[registrar]]", ["kind": "\"exec\"", "command": "[\"/bin/sh\"]"], in: "registrar", "exec"),
        Self(
            .gateway, "[[registrar]]", ["kind": "\"webhook\"", "url": "\"https://x\""], in: "registrar", "webhook"),
        Self(.agents, in: "agents"),
        Self(.agents, "[[agent]]", ["name": "\"x\""], in: "agent"),
        Self(.agent, "", ["gateway": "\"x\""], in: "diglett"),
        Self(.agent, "gateway = \"x\"\n[[expose]]", ["name": "\"x\"", "backend": "\"1\""], in: "expose"),
    ]
}

@Suite("docs/configuration.md")
struct ConfigurationDocumentTests {
    @Test("has the keys that are read, and no others", arguments: ConfigurationTable.all)
    func keys(_ table: ConfigurationTable) throws {
        let known = try table.errors("unknown-to-all", "1").flatMap(\.knownKeys)
        let documented = try Document().keys(table.documented).keys
        #expect(documented.sorted() == known, "tables \(table.documented) of docs/configuration.md")
    }

    @Test(
        "has keys that are known although their option is given",
        arguments: ConfigurationTable.all.filter { $0.documented == ["gateway"] || $0.documented == ["diglett"] })
    func options(_ table: ConfigurationTable) throws {
        let known = try table.errors("unknown-to-all", "1").flatMap(\.knownKeys)
        #expect(try table.errors("unknown-to-all", "1", hasOptions: true).flatMap(\.knownKeys) == known)
    }

    @Test("says of which type they are", arguments: ConfigurationTable.all)
    func types(_ table: ConfigurationTable) throws {
        let wanted = [
            "text": "a text in quotes", "text or list": "a text or a list of texts", "whole number": "a whole number",
            "number": "a number", "true or false": "true or false", "table": "a table, [",
            "tables": "a list of tables, [[",
        ]
        for (key, type) in try Document().keys(table.documented) {
            let words = try #require(wanted[type], "\(key): \(type)")
            // Nothing is a date.
            let reasons = try table.errors(key, "2027-02-21").map(\.reason)
            #expect(reasons.contains { $0.hasPrefix("'\(key)' must be \(words)") }, "\(key): \(reasons)")
        }
    }

    @Test("has no table that is not looked at here")
    func tables() throws {
        #expect(Set(try Document().tables.keys) == Set(ConfigurationTable.all.flatMap(\.documented)))
    }
}
