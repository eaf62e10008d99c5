import Settings
import Testing

@Suite("Relative paths of a file")
struct RelativePathTests {
    @Test("of an agent begin at the file, wherever the program was started")
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
            // Those of the command line begin where its user is.
            options["state-dir"] = ["here"]
            #expect(try AgentSettings(options).stateDirectory == "here")
        }
    }

    @Test("of a gateway begin at the file")
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

    @Test("a file that came through a pipe lies nowhere")
    func pipe() throws {
        #expect(try TOMLFile(path: "/dev/fd/63", text: "a = \"x\"").root.path("a") == "x")
    }
}
