import Settings
import Testing

@Suite("Metrics settings")
struct MetricsSettingsTests {
    /// The error of a command line; empty if it is valid.
    private func problem(_ metrics: String?, isPerName: Bool = false, isOpen: Bool = false) -> String {
        var options = CommandOptions()
        options["state-dir"] = ["/x"]
        options["metrics"] = metrics.map { [$0] } ?? []
        options["metrics-per-name"] = isPerName ? [""] : []
        options["metrics-insecure-ok"] = isOpen ? [""] : []
        return message { try GatewaySettings(options) }
    }

    @Test(
        "accept loopback addresses and unix sockets",
        arguments: [
            "127.0.0.1:9464", "127.9.8.7:0", "[::1]:9464", "localhost:9464", "unix:/run/x.sock",
            "unix:/" + String(repeating: "x", count: 106),
        ])
    func good(_ text: String) { #expect(self.problem(text) == "") }

    @Test(
        "accept other addresses only if the operator opts in",
        arguments: ["0.0.0.0:1", "[::]:1", "192.0.2.1:1", "127.example.com:1", "128.0.0.1:1"])
    func open(_ text: String) {
        #expect(self.problem(text).hasPrefix("option --metrics: \(text) is not a loopback address"))
        #expect(self.problem(text, isOpen: true) == "")
    }

    @Test(
        "refuse anything else",
        arguments: [
            "", "9464", "127.0.0.1", "::1:9464", "unix:", "unix:x.sock", "unix:/run/", "http://127.0.0.1:9464",
            "unix:/" + String(repeating: "x", count: 107), "unix:/a\0b",
        ])
    func bad(_ text: String) {
        #expect(self.problem(text).hasPrefix("option --metrics: '"))
        #expect(self.problem(text, isOpen: true).hasPrefix("option --metrics: '"))
    }

    @Test("are off by default, and per-name metrics then have no meaning")
    func none() throws {
        var options = CommandOptions()
        options["state-dir"] = ["/x"]
        #expect(try GatewaySettings(options).metrics == nil)
        #expect(self.problem(nil, isPerName: true) == "option --metrics-per-name: has no effect without metrics")
        #expect(self.problem("[::1]:1", isPerName: true) == "")
    }

    @Test("are read from a file, and the command line takes precedence")
    func file() throws {
        try withDirectory { directory in
            let path = "\(directory)/server.toml"
            try write("metrics = \"unix:/x\"\nmetrics-per-name = true\n", path)
            var options = CommandOptions()
            options["state-dir"] = [directory]
            options.configuration = path
            let settings = try GatewaySettings(options)
            #expect(settings.metrics?.place == .unix(path: "/x"))
            #expect(settings.metrics?.isPerName == true)
            options["metrics"] = ["[::1]:2"]
            #expect(try GatewaySettings(options).metrics?.place.description == "[::1]:2")
            options["metrics"] = []
            try write("debug = 1\nmetrics = \"[::]:1\"\n", path)
            #expect(message { try GatewaySettings(options) }.hasPrefix("\(path):2: [::]:1 is not a loopback"))
            try write("metrics = \"[::]:1\"\nmetrics-insecure-ok = true\n", path)
            #expect(try GatewaySettings(options).metrics?.isPerName == false)
        }
    }
}
