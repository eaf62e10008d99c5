import Foundation
import ProxyProtocol
import Settings
import Testing
import Wire

@Suite("Addresses")
struct AddressTests {
    @Test(
        "are parsed in every form",
        arguments: zip(
            ["localhost:80", "192.0.2.1:1", "[::1]:65535", "[2001:db8::1]", "gw", "0.0.0.0:0"],
            ["localhost:80", "192.0.2.1:1", "[::1]:65535", "[2001:db8::1]:20000", "gw:20000", "0.0.0.0:0"]))
    func good(_ text: String, _ shown: String) {
        #expect(HostPort(text, defaultPort: 20_000)?.description == shown)
    }

    @Test(
        "are refused if malformed",
        arguments: ["", ":", "a:", "a:b", "a:65536", "::1:80", "[::1", "[x]:1", "a b:1", "a:-1"])
    func bad(_ text: String) {
        #expect(HostPort(text, defaultPort: 20_000) == nil)
    }

    @Test(
        "conflict if they cannot be listened on at the same time",
        arguments: [
            ("127.0.0.1:1", "127.0.0.1:1", true), ("localhost:1", "127.0.0.1:1", true),
            ("127.0.0.1:1", "127.0.0.1:2", false),
            ("127.0.0.1:1", "127.0.0.2:1", false), ("0.0.0.0:1", "127.0.0.1:1", true), ("0.0.0.0:1", "[::]:1", false),
            ("[::]:1", "[2001:db8::1]:1", true), ("[0::1]:1", "[::1]:1", true), ("0.0.0.0:0", "0.0.0.0:0", false),
            ("x:1", "x:1", true), ("x:1", "0.0.0.0:1", false), ("[fe80::1%a]:1", "[fe80::1%b]:1", false),
        ])
    func listeners(_ one: String, _ other: String, _ excludes: Bool) throws {
        let (one, other) = (try #require(HostPort(one)), try #require(HostPort(other)))
        #expect(one.excludes(other) == excludes && other.excludes(one) == excludes)
    }

    @Test("a backend is a port, a host with a port, or a unix socket")
    func backends() throws {
        #expect(try BackendAddress("9000", place: "x").description == "localhost:9000")
        #expect(try BackendAddress("db:5432", place: "x").description == "db:5432")
        #expect(try BackendAddress("unix:/run/x.sock", place: "x") == .unix(path: "/run/x.sock"))
        for text in ["", "0", "70000", "host", "unix:", "unix:/" + String(repeating: "a", count: 107)] {
            #expect(message { try BackendAddress(text, place: "backend") }.hasPrefix("backend: "), "\(text)")
        }
    }

    @Test("the one-line form contains token, gateway and pin, and errors do not repeat the token")
    func oneLine() throws {
        let address = try GatewayAddress("diglett://dgl_a_b@gw.example:20001#sha256/PIN", defaultPort: 1, place: "-g")
        #expect(address.hostPort == HostPort(host: "gw.example", port: 20_001))
        #expect(address.token == "dgl_a_b")
        #expect(address.pins == ["sha256/PIN"])
        #expect(try GatewayAddress("gw", defaultPort: 7, place: "-g").hostPort.port == 7)
        for text in ["dgl_a_secret@gw", "dgl_a_secret", "secret@gw:1"] {
            let refusal = message { try GatewayAddress(text, defaultPort: 1, place: "-g") }
            #expect(refusal.contains("write diglett://TOKEN@HOST:PORT") && !refusal.contains("secret"))
        }
        #expect(!message { try GatewayAddress("diglett://secret@:", defaultPort: 1, place: "-g") }.contains("secret"))
    }

    @Test("a port range is low to high")
    func ranges() throws {
        let range = try PortRange("30000-30010", place: "x")
        #expect(range.contains(30_000) && range.contains(30_010) && !range.contains(30_011))
        #expect(try PortRange("5", place: "x") == PortRange("5-5", place: "x"))
        for text in ["", "-", "9-8", "0-5", "a-b", "1-70000", "1-2-3"] {
            #expect(!message { try PortRange(text, place: "x") }.isEmpty, "\(text)")
        }
    }
}

@Suite("Configuration")
struct ConfigurationTests {
    @Test("of a gateway is read from a file, and the command line takes precedence")
    func gateway() throws {
        try withDirectory { directory in
            let path = "\(directory)/server.toml"
            try write(
                "listen = [\"127.0.0.1:1\", \"[::1]:2\"]\nexpose-ports = \"5-6\"\nauth = \"open\"\ndebug = 1\n", path)
            var options = CommandOptions()
            options.configuration = path
            options["expose-ports"] = ["7-8"]
            options["state-dir"] = [directory]
            let settings = try GatewaySettings(options)
            #expect(settings.listen.map(\.description) == ["127.0.0.1:1", "[::1]:2"])
            #expect(settings.exposePorts.range?.low == 7)
            #expect(settings.authentication == .open)
            #expect(settings.debug == 1)
            #expect(!settings.listensByDefault)
        }
    }

    @Test("of version 1 allows only loopback addresses unless the operator opts out")
    func version1() throws {
        try withDirectory { directory in
            func error(_ addresses: [String], insecure: Bool = false) -> String {
                var options = CommandOptions()
                options["state-dir"] = [directory]
                options["listen-v1"] = addresses
                options["v1-insecure-ok"] = insecure ? [""] : []
                return message { try GatewaySettings(options) }
            }
            for good in ["127.0.0.1:1", "127.9.8.7:0", "[::1]:2", "localhost:3"] { #expect(error([good]) == "") }
            for bad in ["0.0.0.0:1", "[::]:1", "192.0.2.1:1", "127.example.com:1", "128.0.0.1:1", "127.0.0.256:1"] {
                let text = error(["127.0.0.1:1", bad])
                #expect(text.hasPrefix("option --listen-v1: \(bad) is not a loopback"), "\(text)")
                #expect(error([bad], insecure: true) == "")
            }
            #expect(error(["nonsense"], insecure: true).contains("not an address"))
            let path = "\(directory)/server.toml"
            var options = CommandOptions()
            options["state-dir"] = [directory]
            options.configuration = path
            try write("debug = 1\nlisten-v1 = \"0.0.0.0:1\"\n", path)
            #expect(message { try GatewaySettings(options) }.hasPrefix("\(path):2"))
            try write("v1-insecure-ok = true\nlisten-v1 = [\"0.0.0.0:1\", \"[::1]:2\"]\n", path)
            #expect(try GatewaySettings(options).listenVersion1.map(\.description) == ["0.0.0.0:1", "[::1]:2"])
        }
    }

    @Test("of trusted proxies is read from a file, and the command line takes precedence")
    func proxies() throws {
        try withDirectory { directory in
            let path = "\(directory)/server.toml"
            var options = CommandOptions()
            options["state-dir"] = [directory]
            #expect(try GatewaySettings(options).proxies.isEmpty)
            options.configuration = path
            try write("accept-proxy-protocol = [\"127.0.0.1\", \"10.0.0.0/8\", \"::1\"]\n", path)
            #expect(
                try GatewaySettings(options).proxies.map(\.description) == ["127.0.0.1/32", "10.0.0.0/8", "::1/128"])
            try write("\naccept-proxy-protocol = [\"127.0.0.1\", \"10.1.0.0/8\"]\n", path)
            #expect(message { try GatewaySettings(options) }.hasPrefix("\(path):2: '10.1.0.0/8' has bits"))
            options["accept-proxy-protocol"] = ["192.0.2.0/24"]
            #expect(try GatewaySettings(options).proxies.map(\.description) == ["192.0.2.0/24"])
            options["accept-proxy-protocol"] = ["gateway.example.com"]
            #expect(
                message { try GatewaySettings(options) }
                    .hasPrefix("option --accept-proxy-protocol: 'gateway.example.com' is not a network"))
        }
    }

    @Test("of unix sockets for names decides how registrars reach them")
    func sockets() throws {
        try withDirectory { directory in
            let path = "\(directory)/server.toml"
            var options = CommandOptions()
            options["state-dir"] = [directory]
            options.configuration = path
            func via(_ text: String) throws -> RouteSettings.Via? {
                try write(text, path)
                switch try GatewaySettings(options).registrars.first {
                case .traefik(let settings): return settings.route.via
                case .caddy(let settings): return settings.route.via
                case .mapFile(let settings): return settings.route.via
                case .hook, nil: return nil
                }
            }
            let sockets = "expose-sockets = \"/run/x\"\n"
            let nginx =
                "[[registrar]]\nkind = \"nginx\"\ndomain = \"gw.test\"\nfile = \"/x\"\nreload = \"/bin/true\"\n"
            let haproxy = nginx.replacing("nginx", with: "haproxy")
            let caddy = "[[registrar]]\nkind = \"caddy\"\ndomain = \"gw.test\"\n"
            let traefik = "[[registrar]]\nkind = \"traefik\"\ndomain = \"gw.test\"\ndirectory = \"/x\"\n"
            #expect(try via(nginx) == .tcp)
            #expect(try via(sockets + nginx) == .unix)
            #expect(try via(sockets + caddy) == .unix)
            #expect(try via(sockets + traefik) == .tcp)
            #expect(try via(sockets + haproxy) == .tcp)
            #expect(try via(sockets + nginx + "via = \"tcp\"") == .tcp)
            #expect(try via(sockets + nginx + "gateway-host = \"gw\"") == .tcp)
            try write(sockets + "expose-sockets-group = \"0\"\naccept-proxy-protocol = \"unix\"", path)
            let settings = try GatewaySettings(options)
            #expect(settings.exposeSockets?.directory == "/run/x")
            #expect(settings.exposeSockets?.group == 0)
            #expect(settings.socketsAreProxied && settings.proxies.isEmpty)

            let none = "expose-ports = \"none\"\n"
            let long = "expose-sockets = \"/\(String(repeating: "x", count: 50))\""
            for (text, line, words) in [
                (none, 1, "names need unix sockets"),
                ("expose-sockets-group = \"root\"", 1, "no effect without expose-sockets"),
                ("expose-sockets = \"run\"", 1, "write an absolute path"),
                ("expose-sockets = \"/run/x/\"", 1, "is not usable"),
                ("expose-sockets = \"/run/x y\"", 1, "is not usable"), (long, 1, "too long"),
                (sockets + "expose-sockets-group = \"unknown-group\"", 2, "unknown group"),
                ("accept-proxy-protocol = \"unix\"", 1, "without expose-sockets"),
                (sockets + traefik + "via = \"unix\"", 6, "cannot use unix sockets"),
                (sockets + nginx + "via = \"unix\"\ngateway-host = \"gw\"", 7, "another host"),
                (nginx + "via = \"unix\"", 6, "only with expose-sockets"),
                (sockets + nginx + "via = \"udp\"", 7, "neither tcp nor unix"),
                (none + sockets + haproxy, 4, "names have no ports"),
                (none + sockets + nginx + "via = \"tcp\"", 8, "names have no ports"),
                (caddy + "scheme = \"tcp\"", 4, "neither http nor h2c"),
                ("public-url = \"https://example.com\"", 1, "{name}"),
            ] {
                try write(text, path)
                let error = message { try GatewaySettings(options) }
                #expect(error.hasPrefix("\(path):\(line): ") && error.contains(words), "\(text): \(error)")
            }
        }
    }

    @Test("of an agent has one table per name")
    func agent() throws {
        try withDirectory { directory in
            let path = "\(directory)/agent.toml"
            try write(
                """
                gateway = "gw.example"
                [[expose]]
                name = "one"
                backend = "9000"
                [[expose]]
                name = "Two"
                backend = "unix:/x"
                public-port = 31000
                proxy-protocol = "v2"
                """, path)
            var options = CommandOptions()
            options.configuration = path
            options["state-dir"] = [directory]
            let settings = try AgentSettings(options)
            #expect(settings.gateway.description == "gw.example:20000")
            #expect(settings.exposes.map(\.name.text) == ["one", "two"])
            #expect(settings.exposes.map(\.port) == [0, 31_000])
            #expect(settings.exposes.map(\.proxyProtocol) == [nil, .v2])
            options["proxy-protocol"] = ["v1"]
            #expect(message { try AgentSettings(options) }.hasPrefix("option --proxy-protocol: applies to names"))
        }
    }

    @Test(
        "errors contain file, line and reason",
        arguments: zip(
            [
                "gateway = \"g\"\n\nbogus = 1\n", "gateway = 5\n", "gateway = \"g\"\nonce = = 1\n",
                "gateway = \"g\"\n[[expose]]\nname = \"a\"\nbackend = \"1\"\n[[expose]]\nname = \"b\"\nport = 1\nbackend = \"1\"",
                "gateway = \"g\"\n[[expose]]\nname = \"a_b\"\nbackend = \"1\"\n", "gateway = \"g\"\n[other]\nx = 1\n",
                "gateway = \"g\"\n[[expose]]\nname = \"a\"\n",
                "gateway = \"g\"\n[[expose]]\nname = \"a\"\nbackend = \"1\"\nproxy-protocol = \"v3\"",
                "gateway = \"g\"\nv1 = true\n[[expose]]\nname = \"a\"\nbackend = \"1\"\nproxy-protocol = \"v1\"",
            ],
            [
                ":3: unknown key 'bogus'", ":1: 'gateway' must be text in quotes", ":2: ", ":7: unknown key 'port'",
                ":3: 'a_b' is not a valid name", ":2: unknown key 'other'", ":3: 'a' has no backend",
                ":5: 'v3' is neither v1 nor v2",
                ":2: version 1 does not transmit visitors' addresses: leave out proxy-protocol",
            ]))
    func errors(_ text: String, _ expected: String) throws {
        try withDirectory { directory in
            let path = "\(directory)/agent.toml"
            try write(text, path)
            var options = CommandOptions()
            options.configuration = path
            options["state-dir"] = [directory]
            let found = message { try AgentSettings(options) }.split(separator: "\n")
            #expect(found.contains { $0.hasPrefix(path + expected) }, "\(found)")
        }
    }

    @Test("a secret that others can read is refused, and an error never contains a token")
    func secrets() throws {
        try withDirectory { directory in
            let path = "\(directory)/token"
            try write("dgl_x_y\n", path, mode: 0o644)
            var options = CommandOptions()
            options["gateway"] = ["g"]
            options["expose"] = ["a"]
            options["backend"] = ["1"]
            options["token-file"] = [path]
            options["state-dir"] = [directory]
            #expect(message { try AgentSettings(options) }.contains("chmod 600"))
            try write("dgl_x_y\n", path)
            #expect(try AgentSettings(options).token.text == "dgl_x_y")
            try write("two words", path)
            #expect(!message { try AgentSettings(options) }.contains("two words"))
        }
    }

    @Test(
        "whitespace and byte order marks around a token are removed, wherever it comes from",
        arguments: ["", "\n", "\r\n", " \t\r\n\r\n", "\u{A0}\u{2028}"], ["", "\u{FEFF}", " \n\u{FEFF} "])
    func tokensAreCleaned(_ end: String, _ start: String) throws {
        try withDirectory { directory in
            let given = "\(start)dgl_x_y\(end)"
            let (file, configuration) = ("\(directory)/token", "\(directory)/diglett.toml")
            try write(given, file)
            var options = CommandOptions()
            options["gateway"] = ["g"]
            options["expose"] = ["a=1"]
            options["state-dir"] = [directory]
            var (byOption, byFile, byKey) = (options, options, options)
            byOption["token"] = [given]
            byFile["token-file"] = [file]
            byKey.configuration = configuration
            let escaped = given.unicodeScalars.map { "\\u\(String($0.value + 0x10000, radix: 16).suffix(4))" }
            try write("token = \"\(escaped.joined())\"\n", configuration)
            for options in [byOption, byFile, byKey] {
                #expect(try AgentSettings(options).token.text == "dgl_x_y")
                var version1 = options
                version1["v1"] = [""]
                #expect(try AgentSettings(version1).token.text == "dgl_x_y")
            }
            #expect(try AgentSettings(byOption).token.file == nil)
            #expect(try AgentSettings(byKey).token.file == nil)
            #expect(try AgentSettings(byFile).token.file == file)
        }
    }

    @Test("a token file is read again with the same checks as at the start")
    func tokenIsReadAgain() throws {
        try withDirectory { directory in
            let path = "\(directory)/token"
            func read() throws -> String { try LoginToken.read(again: path, isVersion1: false).text }
            try write("first\n", path)
            #expect(try read() == "first")
            try write(" second\r\n", path)
            #expect(try read() == "second")
            for (bad, mode) in [("\n", 0o600), ("two words", 0o600), ("third", 0o644)] {
                try write(bad, path, mode: mode)
                let text = message { try read() }
                #expect(text.hasPrefix("\(path): "))
                #expect(!text.contains("words"))
            }
            // A file replaced by a pipe is refused without waiting for a writer.
            try FileManager.default.removeItem(atPath: path)
            #expect(mkfifo(path, 0o600) == 0)
            #expect(message { try read() }.contains("not a regular file"))
        }
    }

    @Test("missing and superfluous options on the command line are reported")
    func commandLine() {
        func error(_ change: (inout CommandOptions) -> Void) -> String {
            var options = CommandOptions()
            options["gateway"] = ["g"]
            options["expose"] = ["a"]
            options["backend"] = ["9000"]
            options["state-dir"] = ["/nonexistent"]
            change(&options)
            return message { try AgentSettings(options) }
        }
        #expect(error { _ in } == "")
        #expect(error { $0["gateway"] = [] }.contains("-g"))
        #expect(error { $0["expose"] = [] }.contains("-n"))
        #expect(error { $0["backend"] = [] }.contains("the service that 'a' forwards to"))
        #expect(error { $0["expose"] = ["a", "a"] }.contains("twice"))
        #expect(error { $0["expose"] = ["a=1"] }.contains("'9000' is not used: every -n has its own backend"))
        #expect(error { $0["expose"] = ["-x"] }.contains("'-x' is not a valid name"))
        #expect(error { $0["public-port"] = ["0"] }.contains("not a port"))
        #expect(error { $0["output"] = ["xml"] }.contains("neither text nor json"))
        #expect(error { $0["pin"] = ["sha256/short"] }.contains("not a pin"))
        // The last character has unused bits that are set.
        #expect(error { $0["pin"] = ["sha256/" + String(repeating: "A", count: 42) + "B="] }.contains("not a pin"))
        #expect(error { $0["v1"] = [""] } == "")
        #expect(error { ($0["v1"], $0["public-port"]) = ([""], ["4000"]) }.contains("cannot request a public port"))
        #expect(error { ($0["v1"], $0["expose"]) = ([""], ["a", "b"]) }.contains("one name"))
        #expect(error { $0["proxy-protocol"] = ["v1"] } == "")
        #expect(error { $0["proxy-protocol"] = ["2"] }.contains("neither v1 nor v2"))
        #expect(
            error { ($0["v1"], $0["proxy-protocol"]) = ([""], ["v1"]) }.contains(
                "does not transmit visitors' addresses"))
        #expect(
            error { ($0["v1"], $0["pin"]) = ([""], ["sha256/" + String(repeating: "A", count: 43) + "="]) }
                .contains("version 1 has no gateway key"))
    }
}

@Suite("State")
struct StateTests {
    @Test("a file is created once, readable only by its owner, and read from then on")
    func readOrMake() throws {
        try withDirectory { directory in
            let state = try StateDirectory(path: "\(directory)/a/b")
            #expect(try state.readOrMake("key", atMost: 10) { [1, 2] } == [1, 2])
            #expect(try state.readOrMake("key", atMost: 10) { [3] } == [1, 2])
            let mode = try FileManager.default.attributesOfItem(atPath: state.file("key"))[.posixPermissions] as? Int
            #expect(mode == 0o600)
            #expect(try FileManager.default.contentsOfDirectory(atPath: state.path) == ["key"])
        }
    }

    @Test("a directory can be used by one gateway only")
    func lock() throws {
        try withDirectory { directory in
            let one = try StateDirectory(path: directory)
            try one.lockExclusively()
            let two = try StateDirectory(path: directory)
            #expect(message { try two.lockExclusively() }.contains("another gateway"))
        }
    }

    @Test("ports are saved and loaded; an unreadable file is renamed, not lost")
    func ports() throws {
        try withDirectory { directory in
            let file = PortsFile(path: "\(directory)/ports.json")
            #expect(try file.load() == [])
            let entries = [PortsFile.Entry(name: "a", identity: "i", port: 1)]
            try file.save(entries)
            #expect(try file.load() == entries)
            try write("{ not json", file.path)
            #expect(message { try file.load() }.contains("is damaged; it was moved to"))
            #expect(try String(contentsOfFile: "\(file.path).unreadable", encoding: .utf8) == "{ not json")
            #expect(try file.load() == [])
        }
    }

    @Test("a failed write is an error and keeps the old content")
    func replace() throws {
        try withDirectory { directory in
            let path = "\(directory)/x"
            try FileAccess.replace(path, with: [1], durable: true)
            #expect(
                message { try FileAccess.replace("\(directory)/no/x", with: [2], durable: false) }.contains(
                    "no such file"))
            #expect(try FileAccess.read(path, atMost: 1) == [1])
            #expect(message { try FileAccess.read(path, atMost: 0) }.contains("larger"))
        }
    }
}
