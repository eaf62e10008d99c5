import Settings
import Testing

@Suite("Relative paths in a file")
struct RelativePathTests {
    @Test("of an agent are relative to the file, not to the working directory")
    func agent() throws {
        try withDirectory { directory in
            try write("secret\n", "\(directory)/token")
            try write(
                """
                gateway = "gw"
                token-file = "token"
                state-dir = "state"
                url-file = "urls"
                [[expose]]
                name = "a"
                backend = "unix:api.sock"
                [[expose]]
                name = "b"
                backend = "unix:/run/b.sock"
                """, "\(directory)/agent.toml")
            var options = CommandOptions()
            options.configuration = "\(directory)/agent.toml"
            let settings = try AgentSettings(options)
            #expect(settings.token.text == "secret" && settings.token.file == "\(directory)/token")
            #expect(settings.stateDirectory == "\(directory)/state")
            #expect(settings.urlFile == "\(directory)/urls")
            #expect(
                settings.exposes.map(\.backend) == [
                    .unix(path: "\(directory)/api.sock"), .unix(path: "/run/b.sock"),
                ])
            // Paths on the command line are relative to the working directory.
            options["state-dir"] = ["here"]
            #expect(try AgentSettings(options).stateDirectory == "here")
        }
    }

    @Test("of a gateway are relative to the file")
    func gateway() throws {
        try withDirectory { directory in
            try write("state-dir = \"state\"\nagents-file = \"agents.toml\"\n", "\(directory)/gateway.toml")
            var options = CommandOptions()
            options.configuration = "\(directory)/gateway.toml"
            let settings = try GatewaySettings(options)
            #expect(settings.stateDirectory == "\(directory)/state")
            #expect(settings.authentication == .file("\(directory)/agents.toml"))
        }
    }

    @Test("are unchanged if the file came through a pipe")
    func pipe() throws {
        #expect(try TOMLFile(path: "/dev/fd/63", text: "a = \"x\"").root.path("a") == "x")
    }
}
