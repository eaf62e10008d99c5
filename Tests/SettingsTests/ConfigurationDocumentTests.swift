import Foundation
import Settings
import Testing

/// A table of a configuration file: the text before it, and its keys.
struct ConfigurationTable: Sendable, CustomTestStringConvertible {
    enum Reader: Sendable { case gateway, agents, agent }

    let reader: Reader
    /// The text before the table's keys, including its header.
    let head: String
    /// Required keys, with values for them.
    let needed: KeyValuePairs<String, String>
    let tables: [any KeyTable.Type]

    var testDescription: String { self.tables.map { $0.name }.joined(separator: " + ") }
    var keys: [KeyDescription] { self.tables.flatMap { $0.descriptions } }

    init(
        _ reader: Reader, _ head: String = "", _ needed: KeyValuePairs<String, String> = [:],
        of tables: any KeyTable.Type...
    ) {
        self.reader = reader
        self.head = head
        self.needed = needed
        self.tables = tables
    }

    /// The errors of a file in which the table has this key with this value. It replaces a required key of the same
    /// name.
    func errors(_ key: String, _ value: String) throws -> [SettingsError] {
        var lines = self.needed.filter { $0.key != key }.map { "\($0.key) = \($0.value)" }
        lines.append("\(key) = \(value)")
        let text = "\(self.head)\n\(lines.joined(separator: "\n"))\n"
        return try withDirectory { directory in
            var options = CommandOptions()
            options.configuration = "\(directory)/file.toml"
            try write(text, "\(directory)/file.toml")
            do throws(SettingsErrors) {
                switch self.reader {
                case .gateway: _ = try GatewaySettings(options)
                case .agents: _ = try AgentsFile(path: "file.toml", text: text)
                case .agent: _ = try AgentSettings(options)
                }
            } catch { return error.all }
            return []
        }
    }

    static let all: [Self] = [
        Self(.gateway, of: GatewayKeys.self),
        Self(.gateway, "[limits]", of: LimitKeys.self),
        Self(.gateway, "auth = \"exec\"\n[auth-exec]", ["command": "[\"/bin/sh\"]"], of: ExecKeys.self),
        Self(.gateway, "auth = \"webhook\"\n[auth-webhook]", ["url": "\"https://x\""], of: WebhookKeys.self),
        Self(.gateway, "[[registrar]]", ["kind": "\"print\""], of: RegistrarKeys.self),
        Self(
            .gateway, "[[registrar]]", ["kind": "\"traefik\"", "domain": "\"example.com\"", "directory": "\"/x\""],
            of: RegistrarKeys.self, ProxyKeys.self, TraefikKeys.self),
        Self(
            .gateway, "[[registrar]]", ["kind": "\"caddy\"", "domain": "\"example.com\""],
            of: RegistrarKeys.self, ProxyKeys.self, CaddyKeys.self),
        Self(
            .gateway, "[[registrar]]",
            [
                "kind": "\"nginx\"", "domain": "\"example.com\"", "file": "\"/x\"", "reload": "[\"/bin/sh\"]",
            ], of: RegistrarKeys.self, ProxyKeys.self, MapKeys.self),
        Self(
            .gateway, "[[registrar]]",
            [
                "kind": "\"haproxy\"", "domain": "\"example.com\"", "file": "\"/x\"", "reload": "[\"/bin/sh\"]",
            ], of: RegistrarKeys.self, ProxyKeys.self, MapKeys.self),
        Self(
            .gateway, "[[registrar]]", ["kind": "\"exec\"", "command": "[\"/bin/sh\"]"],
            of: RegistrarKeys.self, ExecKeys.self),
        Self(
            .gateway, "[[registrar]]", ["kind": "\"webhook\"", "url": "\"https://x\""],
            of: RegistrarKeys.self, WebhookKeys.self),
        Self(.agents, of: AgentsKeys.self),
        Self(.agents, "[[agent]]", ["name": "\"x\""], of: AgentEntryKeys.self),
        Self(.agent, "", ["gateway": "\"x\""], of: AgentKeys.self),
        Self(.agent, "gateway = \"x\"\n[[expose]]", ["name": "\"x\"", "backend": "\"1\""], of: ExposeKeys.self),
    ]
}

private let allTables = KeyTables.ofGateway + KeyTables.ofAgent

@Suite("docs/configuration.md")
struct ConfigurationDocumentTests {
    @Test("has the tables as declared in the programs; scripts/configuration-tables writes them")
    func document() throws {
        let file = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent().appendingPathComponent("docs/configuration.md")
        let mark = "<!-- keys: "
        let found = try String(contentsOf: file, encoding: .utf8).components(separatedBy: mark).dropFirst().map {
            part in
            mark
                + part.split(separator: "\n").prefix { !$0.isEmpty && ($0.hasPrefix("|") || $0.hasSuffix("-->")) }
                .map { "\($0)\n" }.joined()
        }
        #expect(found == allTables.map { $0.markdown })
    }

    @Test("has exactly the keys that the programs read", arguments: ConfigurationTable.all)
    func keys(_ table: ConfigurationTable) throws {
        let known = try table.errors("unknown-to-all", "1").flatMap(\.knownKeys)
        #expect(table.keys.map(\.name).sorted() == known)
    }

    /// A key that is declared but never read would cause no error here.
    @Test("has the types that the programs require", arguments: ConfigurationTable.all)
    func types(_ table: ConfigurationTable) throws {
        for key in table.keys {
            let words =
                switch key.type {
                case .text: "text in quotes"
                case .textOrList: "text or a list of texts"
                case .wholeNumber: "a whole number"
                case .number: "a number"
                case .trueOrFalse: "true or false"
                case .table: "a table, ["
                case .tables: "a list of tables, [["
                }
            // No key takes a date.
            let reasons = try table.errors(key.name, "2027-02-21").map(\.reason)
            #expect(reasons.contains { $0.hasPrefix("'\(key.name)' must be \(words)") }, "\(key.name): \(reasons)")
        }
    }

    @Test("has only tables that are tested here")
    func tables() {
        #expect(Set(allTables.map { $0.name }) == Set(ConfigurationTable.all.flatMap(\.tables).map { $0.name }))
    }
}

@Suite("Keys")
struct KeyTests {
    @Test("have one-line texts that fit in a Markdown table", arguments: allTables.map { $0.name })
    func texts(_ name: String) throws {
        let table = try #require(allTables.first { $0.name == name })
        #expect(!table.descriptions.isEmpty)
        for line in table.markdown.split(separator: "\n").dropFirst() {
            let cells = line.split(separator: "|", omittingEmptySubsequences: false)
            #expect(cells.count == (table.optionHeading == nil ? 6 : 7), "\(line)")
        }
        #expect(Set(table.descriptions.map(\.name)).count == table.descriptions.count)
    }

    @Test(
        "have help texts with their default",
        arguments: [
            (
                "listen",
                "Addresses to accept agents on, HOST:PORT; may be repeated. (default: 0.0.0.0:20000 and [::]:20000)"
            ),
            (
                "listen-v1",
                "Addresses to accept agents of the original diglett on (version 1); may be repeated. (default: none)"
            ),
            ("debug", "Log debug messages; twice: also trace messages."),
            ("log-format", "Log format: text, or json for one object per line. (default: text)"),
            ("metrics-per-name", "Also serve metrics of each name; needs metrics."),
        ])
    func help(_ key: String, _ help: String) throws {
        #expect(try #require(GatewayKeys.descriptions.first { $0.name == key }).help == help)
    }

    @Test("on the command line replace those of the file; the higher level applies, and a switch is on if either is")
    func order() throws {
        try withDirectory { directory in
            let path = "\(directory)/f.toml"
            var options = CommandOptions()
            (options.configuration, options["state-dir"]) = (path, [directory])
            try write("debug = 2\nlog-streams = true\nexpose-bind = [\"::1\"]\n", path)
            options["debug"] = [""]
            options["expose-bind"] = ["127.0.0.2", "127.0.0.3"]
            var settings = try GatewaySettings(options)
            #expect(settings.debug == 2 && settings.logsStreams && settings.exposeBind == ["127.0.0.2", "127.0.0.3"])
            options["debug"] = ["", "", ""]
            options["expose-bind"] = []
            settings = try GatewaySettings(options)
            #expect(settings.debug == 3 && settings.exposeBind == ["::1"])
        }
    }

    @Test("of the file are checked even if an option replaces them")
    func overridden() throws {
        try withDirectory { directory in
            let path = "\(directory)/f.toml"
            try write("log-format = \"xml\"\nlisten = 5\n", path)
            var options = CommandOptions()
            (options.configuration, options["state-dir"]) = (path, [directory])
            (options["log-format"], options["listen"]) = (["yaml"], ["127.0.0.1:1"])
            let found = message { try GatewaySettings(options) }.split(separator: "\n")
            #expect(
                found == [
                    "option --log-format: 'yaml' is neither text nor json",
                    "\(path):1: 'xml' is neither text nor json",
                    "\(path):2: 'listen' must be text or a list of texts",
                ])
        }
    }
}

@Suite("Errors in an agent's settings")
struct AgentFindingsTests {
    @Test("are all reported")
    func everything() throws {
        try withDirectory { directory in
            let path = "\(directory)/f.toml"
            try write(
                """
                gateway = "g:x"
                token = "two words"
                pin = ["sha256/x", "sha256/y"]
                output = "xml"
                link-mss = 5
                stall-timeout = "5"
                colour = 1
                exec-on-ready = ""
                [[expose]]
                name = "a_b"
                backend = "nowhere"
                proxy-protocol = "v3"
                port = 1
                [[expose]]
                backend = "1"
                public-port = 70000
                [[expose]]
                name = "ok"
                backend = "1"
                [[expose]]
                name = "ok"
                backend = "2"
                """, path)
            var options = CommandOptions()
            (options.configuration, options["state-dir"]) = (path, [directory])
            let found = message { try AgentSettings(options) }.split(separator: "\n").map {
                $0.replacing("\(path):", with: "")
            }
            for start in [
                "1: 'g:x' is not a gateway address", "2: a token has at most", "3: 'sha256/x' is not a pin",
                "3: 'sha256/y' is not a pin",
                "4: 'xml' is neither", "5: 'link-mss' must be", "6: 'stall-timeout' must be", "7: unknown key 'colour'",
                "8: is empty: write a shell command", "10: 'a_b' is not a valid name", "11: 'nowhere' is not a backend",
                "12: 'v3' is neither", "13: unknown key 'port'", "14: a table [[expose]] needs a name",
                "16: 'public-port' must be", "21: the name 'ok' was given twice",
            ] { #expect(found.contains { $0.hasPrefix(start) }, "\(start) in \(found)") }
            #expect(found.count == 16, "\(found)")
        }
    }

    @Test("on the command line are all reported, too")
    func commandLine() {
        var options = CommandOptions()
        options["expose"] = ["a_b=1", "c=nowhere", "d"]
        options["pin"] = ["x"]
        options["public-port"] = ["x"]
        options["state-dir"] = ["/x"]
        let found = message { try AgentSettings(options) }.split(separator: "\n")
        for start in [
            "option --gateway: missing", "option --name: 'a_b' is not a valid name",
            "option --name: 'nowhere' is not a backend",
            "argument BACKEND: missing: the service that 'd' forwards to", "option --pin: 'x' is not a pin",
            "option --public-port: 'x' is not a port",
        ] { #expect(found.contains { $0.hasPrefix(start) }, "\(start) in \(found)") }
        #expect(found.count == 6, "\(found)")
    }

    @Test("of an unreadable file are one error, without missing keys", arguments: ["a = 1\na = 2\n", nil])
    func unreadable(_ text: String?) throws {
        try withDirectory { directory in
            if let text { try write(text, "\(directory)/f") }
            var options = CommandOptions()
            (options.configuration, options["state-dir"]) = ("\(directory)/f", [directory])
            let found = message { try AgentSettings(options) }.split(separator: "\n")
            #expect(found.count == 1 && found[0].hasPrefix("\(directory)/f"), "\(found)")
        }
    }

    @Test("of the file are reported even if names on the command line replace its names")
    func replacedNames() throws {
        try withDirectory { directory in
            var options = CommandOptions()
            (options.configuration, options["state-dir"]) = ("\(directory)/f", [directory])
            (options["expose"], options["backend"]) = (["x"], ["1"])
            try write("gateway = \"g\"\n[[expose]]\nname = \"a\"\nbackend = \"1\"\ncolour = 1\n", "\(directory)/f")
            #expect(message { try AgentSettings(options) }.hasPrefix("\(directory)/f:5: unknown key 'colour'"))
            try write("gateway = \"g\"\nexpose = 5\n", "\(directory)/f")
            #expect(
                message { try AgentSettings(options) }
                    == "\(directory)/f:2: 'expose' must be a list of tables, [[expose]]")
        }
    }

    @Test("include a readable file with a token in the gateway's line")
    func tokenInLine() throws {
        try withDirectory { directory in
            var options = CommandOptions()
            (options.configuration, options["state-dir"]) = ("\(directory)/f", [directory])
            let text = "gateway = \"diglett://t@g\"\n[[expose]]\nname = \"a\"\nbackend = \"1\"\n"
            try write(text, "\(directory)/f", mode: 0o644)
            #expect(message { try AgentSettings(options) }.contains("chmod 600"))
            try write(text, "\(directory)/f")
            #expect(try AgentSettings(options).token.text == "t")
        }
    }

    @Test("are reported before a token is read from a pipe")
    func pipe() throws {
        try withDirectory { directory in
            #expect(mkfifo("\(directory)/pipe", 0o600) == 0)
            var options = CommandOptions()
            (options["gateway"], options["expose"], options["state-dir"]) = (["g"], ["a_b=1"], [directory])
            options["token-file"] = ["\(directory)/pipe"]
            // Reading the pipe would wait for a writer.
            #expect(message { try AgentSettings(options) }.hasPrefix("option --name: 'a_b' is not a valid name"))
            options["expose"] = ["ab=1"]
            #expect(AgentSettings.examine(options).problems.isEmpty)
        }
    }
}
