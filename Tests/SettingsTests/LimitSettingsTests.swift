import Testing

@testable import Settings

@Suite("Configured limits")
struct LimitSettingsTests {
    /// The limits that a gateway reads from these lines, and the errors in them.
    private func gateway(_ lines: String) throws -> (limits: LimitSettings, found: [String]) {
        try withDirectory { directory in
            let path = "\(directory)/f"
            try write("debug = 0\n[limits]\n\(lines)\n", path)
            var options = CommandOptions()
            options.configuration = path
            options["state-dir"] = ["\(directory)/state"]
            let result = GatewaySettings.examine(options)
            return (
                result.settings.limits,
                result.problems.map { $0.description.replacing("\(directory)/", with: "") }
            )
        }
    }

    @Test("have defaults without the table and with an empty one")
    func defaults() throws {
        #expect(try self.gateway("") == (LimitSettings(), []))
        let limits = try GatewaySettings(CommandOptions()).limits
        #expect(limits == LimitSettings())
        #expect(limits.visitors == nil && limits.agents == nil && limits.memory == nil)
        #expect((limits.stallTimeout, limits.halfCloseTimeout) == (0, 0))
        #expect(limits.version1LinksPerAgent == 256 && limits.namesPerAgent == 256)
    }

    @Test("are read from the table")
    func read() throws {
        let (limits, found) = try self.gateway(
            """
            visitors = 10
            visitors-per-source = 11
            visitors-per-second = 12
            agents = 13
            links-per-agent = 14
            names-per-link = 15
            streams-per-link = 16
            memory = "17M"
            handshake-timeout = "18s"
            login-timeout = "19s"
            stall-timeout = "20m"
            half-close-timeout = "21h"
            """)
        var expected = LimitSettings()
        (expected.visitors, expected.visitorsPerSource, expected.visitorsPerSecond) = (10, 11, 12)
        (expected.agents, expected.linksPerAgent, expected.namesPerLink, expected.streamsPerLink) = (13, 14, 15, 16)
        (expected.memory, expected.handshakeTimeout, expected.loginTimeout) = (17 << 20, 18_000, 19_000)
        (expected.stallTimeout, expected.halfCloseTimeout) = (1_200_000, 75_600_000)
        #expect(found.isEmpty && limits == expected, "\(found)")
    }

    @Test(
        "are accepted at the bounds of their range, and refused beyond with file, line and range",
        arguments: [
            ("visitors", 1, 1_048_576), ("visitors-per-source", 1, 1_048_576), ("visitors-per-second", 1, 1_000_000),
            ("agents", 1, 65_535), ("links-per-agent", 1, 65_535), ("names-per-link", 1, 4_096),
            ("streams-per-link", 1, 65_535),
        ])
    func counts(_ key: String, _ least: Int, _ atMost: Int) throws {
        for value in [least, atMost] { #expect(try self.gateway("\(key) = \(value)").found.isEmpty) }
        for value in [-1, least - 1, atMost + 1] {
            let (limits, found) = try self.gateway("\(key) = \(value)")
            #expect(found == ["f:3: '\(key)' must be from \(least) to \(atMost), not \(value)"])
            #expect(limits == LimitSettings())
        }
    }

    @Test(
        "durations need a unit, and have a range",
        arguments: [("handshake-timeout", "login-timeout"), ("login-timeout", "")])
    func loginTimes(_ key: String, _ other: String) throws {
        let more = other.isEmpty ? "" : "\(other) = \"5m\"\n"
        for value in ["10s", "15s", "300s", "5m"] {
            #expect(try self.gateway("\(more)\(key) = \"\(value)\"").found.isEmpty, "\(value)")
        }
        for value in ["0", "0s", "301s", "6m", "5", "", "s", "1.5m", "5 m", "-1s", "1h", "999999999999999999999s"] {
            let found = try self.gateway("\(more)\(key) = \"\(value)\"").found
            #expect(
                found.count == 1 && found[0].contains("'\(key)' must be a duration from 1s to 5m"), "\(value): \(found)"
            )
        }
    }

    @Test("the login timeout must not be shorter than the handshake timeout")
    func order() throws {
        #expect(try self.gateway("handshake-timeout = \"15s\"").found.isEmpty)
        #expect(
            try self.gateway("handshake-timeout = \"16s\"").found == [
                "f:3: 'login-timeout' (15s) must not be shorter than 'handshake-timeout' (16s): both start with the TCP "
                    + "connection"
            ])
        #expect(try self.gateway("handshake-timeout = \"2m\"\nlogin-timeout = \"1m\"").found[0].hasPrefix("f:4: "))
    }

    @Test("0 disables timeouts of stalled and half-closed streams", arguments: ["stall-timeout", "half-close-timeout"])
    func never(_ key: String) throws {
        for (value, milliseconds) in [("0", 0), ("0s", 0), ("1s", 1_000), ("7d", 604_800_000)] as [(String, UInt64)] {
            let (limits, found) = try self.gateway("\(key) = \"\(value)\"")
            #expect(found.isEmpty)
            #expect([limits.stallTimeout, limits.halfCloseTimeout].contains(milliseconds))
        }
        for value in ["0m", "8d", "604801s", "never"] {
            let found = try self.gateway("\(key) = \"\(value)\"").found
            #expect(found.first?.hasPrefix("f:3: '\(key)' must be \"0\" (never) or a duration from 1s to 7d") ?? false)
        }
    }

    @Test(
        "memory needs a unit, and has a range",
        arguments: [
            ("16M", 16 << 20), ("16777216", 16 << 20), ("16384K", 16 << 20), ("2G", 2 << 30), ("64T", 64 << 40),
        ])
    func memory(_ text: String, _ bytes: Int) throws {
        #expect(try self.gateway("memory = \"\(text)\"").limits.memory == bytes)
        for wrong in ["", "M", "16", "15M", "16777215", "65T", "1P", "16m", "-16M", "16 M", "1e9", "99999999999T"] {
            let found = try self.gateway("memory = \"\(wrong)\"").found
            #expect(found.count == 1 && found[0].hasPrefix("f:3: 'memory' must be a size from 16M to 64T"), "\(wrong)")
        }
    }

    @Test("a link keeps from 64 KiB to 1 GiB, and waits for an agent from a second to an hour, or not at all")
    func resumption() throws {
        let (limits, found) = try self.gateway("resume-memory = \"64K\"\nresume-window = \"1h\"")
        #expect(found.isEmpty && limits.resumeMemory == 65_536 && limits.resumeWindow == 3_600_000)
        #expect(try self.gateway("resume-window = \"0\"").limits.resumeWindow == 0)
        for wrong in ["63K", "65535", "1025M", "2G", "0"] {
            let found = try self.gateway("resume-memory = \"\(wrong)\"").found
            let text = "f:3: 'resume-memory' must be a size from 64K to 1G, such as \"512M\" or \"1G\", not '\(wrong)'"
            #expect(found == [text])
        }
        for wrong in ["0m", "61m", "never"] {
            let found = try self.gateway("resume-window = \"\(wrong)\"").found
            #expect(
                found.first?.hasPrefix("f:3: 'resume-window' must be \"0\" (never) or a duration from 1s to 1h")
                    ?? false)
        }
    }

    @Test("all mistakes in the table are reported")
    func all() throws {
        let found = try self.gateway("visitors = 0\nmemory = \"x\"\ncolour = 1").found
        #expect(found.map { String($0.prefix(4)) } == ["f:3:", "f:4:", "f:5:"], "\(found)")
    }

    @Test("an agent has three limits")
    func agent() throws {
        func read(_ lines: String) throws -> LimitSettings {
            try withDirectory { directory in
                try write("gateway = \"x\"\n\(lines)\n", "\(directory)/f")
                var options = CommandOptions()
                options.configuration = "\(directory)/f"
                options["expose"] = ["x"]
                options["backend"] = ["1"]
                options["state-dir"] = [directory]
                return try AgentSettings(options).limits
            }
        }
        let limits = try read("streams-per-link = 9\nstall-timeout = \"1s\"\nhalf-close-timeout = \"1h\"")
        #expect((limits.streamsPerLink, limits.stallTimeout, limits.halfCloseTimeout) == (9, 1_000, 3_600_000))
        #expect(try read("") == LimitSettings())
        for line in [
            "streams-per-link = 0", "streams-per-link = 65536", "stall-timeout = \"8d\"", "half-close-timeout = \"x\"",
        ] {
            #expect(message { try read(line) }.contains("f:2: '"), "\(line)")
        }
    }
}
