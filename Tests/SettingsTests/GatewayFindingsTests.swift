import Foundation
import Testing

@testable import Settings

@Suite("Errors in a gateway's file")
struct GatewayFindingsTests {
    /// - Parameter state: the state directory, relative to the test's directory; nil to use the file's.
    private func examine(_ text: String, state: String? = "state") throws -> (
        found: [String], settings: GatewaySettings, needs: [StartNeed]
    ) {
        try withDirectory { directory in
            let path = "\(directory)/f"
            try write(text, path)
            var options = CommandOptions()
            options.configuration = path
            options["state-dir"] = state.map { ["\(directory)/\($0)"] } ?? []
            let result = GatewaySettings.examine(options)
            let found = result.problems.map { $0.description.replacing("\(directory)/", with: "") }
            return (found, result.settings, result.needs)
        }
    }

    @Test("are all reported, even several in one table")
    func everything() throws {
        let found = try examine(
            """
            foo = 1
            bar = 2
            listen = ["nonsense:x", "127.0.0.1:1"]
            [[registrar]]
            kind = "nginx"
            domain = "Bad.Test"
            gateway-host = "1.2.3.4; } evil \\n x"
            file = "map"
            reload = ["true"]
            timeout = 99
            one = 1
            two = 2
            [[registrar]]
            kind = "caddy"
            domain = "a.test"
            admin = "http://u:p@localhost:2019"
            server = "srv0?x"
            [auth-webhook]
            url = "http://192.0.2.1/"
            """
        ).found
        for start in [
            "f:1: unknown key 'foo'", "f:2: unknown key 'bar'", "f:3: 'nonsense:x' is not an address",
            "f:6: 'Bad.Test' is not a domain", "f:7: '1.2.3.4; } evil \\u{A} x' is not a host name or an address",
            "f:8: 'map' is not an absolute path",
            "f:9: 'true': write", "f:10: 'timeout' is", "f:11: unknown key 'one'", "f:12: unknown key 'two'",
            "f:16: 'http://localhost:2019' is not an admin address: a user or password before the host",
            "f:17: 'srv0?x' is not a server name",
            "f:18: has no effect",
        ] { #expect(found.contains { $0.hasPrefix(start) }, "\(start) in \(found)") }
        #expect(found.count == 13, "\(found)")
    }

    @Test("include every invalid pattern, port and pin of an agent")
    func lists() {
        let text = message {
            try AgentsFile(
                path: "f",
                text: """
                    [[agent]]
                    name = "a"
                    names = ["!", "x", "?"]
                    ports = ["9-1", "5", "x"]
                    pins = ["p", "q"]
                    foo = 1
                    bar = 2
                    """)
        }
        for (line, value) in [(3, "!"), (3, "?"), (4, "9-1"), (4, "x"), (5, "p"), (5, "q")] {
            #expect(text.contains("f:\(line): '\(value)'"), "\(text)")
        }
        #expect(text.contains("f:6: unknown key 'foo'") && text.contains("f:7: unknown key 'bar'"))
    }

    @Test("do not hide what a start needs, which is reported with its place")
    func needs() throws {
        let needs = try examine(
            """
            expose-bind = "192.0.2.1"
            listen = "x:1"
            expose-sockets = "/run/x"
            control = "/run/y/c.sock"
            colour = 1
            [[registrar]]
            kind = "traefik"
            domain = "a.test"
            directory = "/etc/t"
            [[registrar]]
            kind = "haproxy"
            domain = "a.test"
            file = "/etc/h/map"
            reload = "/bin/true"
            """
        ).needs
        for (line, kind) in [
            (1, StartNeed.Kind.address("192.0.2.1")), (2, .address("x")), (2, .listener(HostPort(host: "x", port: 1))),
            (3, .ownDirectory("/run/x")),
            (4, .directory("/run/y")), (9, .directory("/etc/t")), (13, .directory("/etc/h")), (13, .file("/etc/h/map")),
        ] { #expect(needs.contains { $0.kind == kind && $0.place.hasSuffix("/f:\(line)") }, "\(line) in \(needs)") }
        #expect(try examine("listen = \n").needs.isEmpty)
    }

    @Test(
        "a webhook's URL is printed without parts that may be secret",
        arguments: [
            ("https://host:1/x?token=T#F", "https://host:1/x"), ("https://host/a@b", "https://host/a@b"),
            ("https://host?x", "https://host"), ("https://host", "https://host"),
            ("http://localhost:9/hook", "http://localhost:9/hook"),
        ])
    func shownURL(_ url: String, _ shown: String) throws {
        let settings = try examine("auth = \"webhook\"\n[auth-webhook]\nurl = \"\(url)\"\n").settings
        guard case .hook(.webhook(let webhook)) = settings.authentication else {
            return _ = Issue.record("no webhook")
        }
        #expect(webhook.url == url && webhook.shownURL == shown)
        #expect(settings.authentication.description == "webhook \(shown)")
    }

    @Test(
        "a refused URL is printed without parts that may be secret",
        arguments: [
            ("ftp://u:S3CRET@host/x?t=S3CRET", "'ftp://host/x': it must begin with https:// or http://; write"),
            (
                "https://user:S3CRET@host:1/x?token=S3CRET#F",
                "'https://host:1/x': a user or password before the host is not allowed"
            ),
            ("https://S3CRET@b:c@host?x", "'https://host': a user or password before the host is not allowed"),
            (
                "http://localhost:x@127.0.0.2:1/",
                "'http://127.0.0.2:1/': a user or password before the host is not allowed"
            ),
            ("http://127.0.0.1:80@evil/", "'http://evil/': a user or password before the host is not allowed"),
            ("https:/S3CRET:S3CRET@host", "'host': it must begin with https:// or http://"),
            ("S3CRET:S3CRET@host/x", "'host': it must begin with https:// or http://"),
            ("http://evil/", "'http://evil/': write https://..., or http:// for an address of this machine"),
            ("http://127.0.0.1.evil/", "'http://127.0.0.1.evil/': write https://"),
            ("https://", "'https://': the host is missing"),
            ("https://a b/", "'https://a b/': spaces, control characters"),
            ("https://x:99999/", "'https://x:99999/': after the host, only ':' and a port"),
            ("https://[::1", "'https://[::1': the bracket"),
            ("https://x/\\n", "'https://x/\\u{A}': spaces, control characters"),
        ])
    func refusedURL(_ url: String, _ reason: String) throws {
        let found = try examine("auth = \"webhook\"\n[auth-webhook]\nurl = \"\(url)\"\n").found
        #expect(found.count == 1 && found[0].hasPrefix("f:3: \(reason)"), "\(found)")
        #expect(!found.contains { $0.contains("S3CRET") })
    }

    @Test(
        "a webhook's secret is the content of its file without surrounding whitespace",
        arguments: [
            ("  hush\r\n\n", "hush", ""), ("\u{A0}h\u{FC}sh!\t", "h\u{FC}sh!", ""),
            ("hu sh", "", "line breaks or control characters are not allowed"),
            ("hu\nsh", "", "line breaks or control characters are not allowed"),
            ("hu\u{2028}sh", "", "line breaks or control characters are not allowed"),
            ("hush\u{0}", "", "line breaks or control characters are not allowed"),
            ("hu\u{1B}sh", "", "line breaks or control characters are not allowed"),
            ("\u{FEFF}hush", "", "line breaks or control characters are not allowed"),
            (" \r\n", "", "is empty: it must contain the secret"),
            ("\u{7F}", "", "line breaks or control characters are not allowed"),
        ])
    func secret(_ text: String, _ secret: String, _ error: String) throws {
        try withDirectory { directory in
            let path = "\(directory)/secret"
            try write(text, path)
            let file = "auth = \"webhook\"\n[auth-webhook]\nurl = \"https://x\"\nsecret-file = \"\(path)\"\n"
            let (found, settings, _) = try examine(file)
            guard case .hook(.webhook(let webhook)) = settings.authentication else {
                return _ = Issue.record("no webhook")
            }
            #expect(webhook.secret == secret)
            #expect(
                error.isEmpty
                    ? found.isEmpty
                    : found.count == 1 && found[0].hasPrefix("f:4: \(path): ") && found[0].contains(error), "\(found)")
            try Data([0x68, 0xFC, 0x68]).write(to: URL(fileURLWithPath: path))
            #expect(try examine(file).found.first?.contains("not UTF-8 text") == true)
            try write("hush", path, mode: 0o644)
            #expect(
                try examine(file).found.first?.hasPrefix("f:4: \(path): contains a secret and other users can") == true)
        }
    }

    @Test(
        "a public URL must be safe for agents to pass to scripts",
        arguments: [
            ("https://{name}.a.test:8443/x", ""), ("http://a.test/{name}", ""), ("{name}.a.test:443", ""),
            ("tcp://u@{name}", "f:1: 'tcp://{name}' is not HOST:PORT or an http"),
            ("https://a.test/?n={name}", "f:1: 'https://a.test/' is not HOST:PORT or an http"),
            ("https://a.test/$({name})", "f:1: 'https://a.test/$({name})' is not HOST:PORT or an http"),
            ("{name}.a.test", "f:1: '{name}.a.test' is not HOST:PORT or an http"),
            (
                "https://u:p@{name}.a.test",
                "f:1: 'https://{name}.a.test': a user or password before the host is not allowed"
            ),
            ("https://{name}.a.test:99999", "f:1: 'https://{name}.a.test:99999': after the host, only ':' and a port"),
            ("https:///{name}", "f:1: 'https:///{name}': the host is missing"),
        ])
    func publicURL(_ url: String, _ error: String) throws {
        let (found, settings, _) = try examine("public-url = \"\(url)\"\n")
        #expect(settings.publicURL == (error.isEmpty ? url : nil))
        #expect(error.isEmpty ? found.isEmpty : found.count == 1 && found[0].hasPrefix(error), "\(found)")
    }

    @Test("include zero characters and a negative debug level")
    func further() throws {
        let found = try examine(
            """
            debug = -1
            state-dir = "/var/lib/x\\u0000y"
            listen = ["127.0.0.1:1", "127.0.0.1:2\\u0000"]
            [[registrar]]
            kind = "exec"
            command = ["/bin/true", "a\\u0000b"]
            """
        ).found
        for start in [
            "f:1: 'debug' must be from 0 to 9, not -1", "f:2: 'state-dir' contains a zero character",
            "f:3: 'listen' contains a zero character",
            "f:6: 'command' contains a zero character",
        ] { #expect(found.contains { $0.hasPrefix(start) }, "\(start) in \(found)") }
        #expect(found.count == 4, "\(found)")
    }

    @Test("the highest number is not a group, because chown(2) takes it as no change")
    func group() throws {
        #expect(throws: SettingsError.self) { try Group.number("4294967295", place: "p") }
        #expect(try Group.number("4294967294", place: "p") == 4_294_967_294)
    }

    @Test(
        "an invalid value is not also reported as missing, and causes no further errors",
        arguments: [
            ("expose-sockets = 1\nexpose-sockets-group = \"0\"", 1), ("metrics = 1\nmetrics-per-name = true", 1),
            ("tls-cert = 5\ntls-key = \"/x\"", 1), ("[limits]\nhandshake-timeout = 5\nlogin-timeout = \"5s\"", 1),
            ("auth = 5\n[auth-webhook]\nurl = \"https://x\"", 1),
            ("auth = \"webhok\"\n[auth-webhook]\nurl = \"https://x\"", 1),
            ("auth = \"exec\"\n[[auth-exec]]\ncommand = \"/bin/sh\"", 1),
            (
                "[[registrar]]\nkind = \"caddy\"\ndomain = \"a.b\"\nadmin = \"https://x\"\n[[registrar]]\nkind = \"caddy\"\n"
                    + "domain = \"a.b\"", 1
            ),
            ("expose-bind = [\"foo\", \"bar\"]", 2), ("expose-bind = [\"::1\", \"0:0::1\"]", 1),
            ("state-dir = \"\"", 1), ("tls-cert = \"\"\ntls-key = \"/x\"", 1), ("listen = []", 0),
        ])
    func followUps(_ text: String, _ count: Int) throws {
        let (found, settings, _) = try self.examine(text, state: nil)
        #expect(found.count == count, "\(found)")
        #expect(settings.listen.count == 2 && settings.listensByDefault)
    }

    @Test("an option replaces the choice in the file, together with its dependent keys")
    func chosenByOption() throws {
        try withDirectory { directory in
            try write("auth = \"exec\"\n[auth-exec]\ncommand = \"/bin/sh\"\n", "\(directory)/f")
            var options = CommandOptions()
            (options.configuration, options["state-dir"]) = ("\(directory)/f", [directory])
            options["auth"] = ["open"]
            #expect(try GatewaySettings(options).authentication == .open)
            try write("expose-sockets-group = \"unknown-group\"\n", "\(directory)/f")
            (options["expose-sockets"], options["expose-sockets-group"]) = (["/run/x"], ["0"])
            #expect(try GatewaySettings(options).exposeSockets?.group == 0)
        }
    }
}
