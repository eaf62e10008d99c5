import Glibc
package import ProxyProtocol
package import Wire

/// The settings of an agent. The command line takes precedence over the configuration file, and both over the defaults.
package struct AgentSettings: Sendable {
    package enum Output: String, Sendable, CaseIterable {
        /// For people.
        case text
        /// One JSON object per line, for programs.
        case json
    }

    /// A name and its backend.
    package struct Expose: Equatable, Sendable {
        package let name: Name
        package let backend: BackendAddress
        /// The requested public port, or 0 for any.
        package let port: UInt16
        /// The version of the PROXY header that sends the visitor's address to the backend; nil for none.
        package let proxyProtocol: ProxyVersion?
    }

    package let gateway: HostPort
    package internal(set) var exposes: [Expose]
    package let token: LoginToken
    package let pins: [String]
    package let output: Output
    package let once: Bool
    /// Speak protocol version 1, to a gateway of the original diglett.
    package let version1: Bool
    package let debug: Int
    package let logFormat: LogFormat
    /// Whether to log a line for each stream that has ended.
    package let logsStreams: Bool
    package let stateDirectory: String
    /// The file to write the addresses of the names to, once all names are reachable.
    package let urlFile: String?
    /// The program to start then, with its arguments; empty for none.
    package let execOnReady: [String]
    /// Limits of streams; an agent does not use the others.
    package let limits: LimitSettings
    /// Size of the largest TCP segment of a link in bytes; nil for what the path allows.
    package let linkMSS: Int?

    /// From the smallest size that every host must accept (RFC 9293, 3.7.1) to the content of a 9,000-byte jumbo frame.
    static let segmentRange = 536...8_960

    /// Why the settings are read.
    package enum Occasion: Sendable {
        case start
        /// The agent is running: reading must not wait for a pipe's writer or a terminal.
        case reload
        /// Nothing is started: standard input is not read.
        case check
    }

    /// Throws all errors, not only the first.
    package init(_ options: CommandOptions, for occasion: Occasion = .start) throws(SettingsErrors) {
        let problems = Problems()
        self.init(options, problems, occasion)
        try problems.throwIfAny()
    }

    /// Reads settings that may have errors, and lists what else a start needs. Harmless values replace invalid ones.
    package static func examine(
        _ options: CommandOptions
    ) -> (settings: AgentSettings, problems: [SettingsError], needs: [StartNeed]) {
        let problems = Problems()
        let settings = AgentSettings(options, problems, .check)
        return (settings, problems.found, problems.needs)
    }

    private init(_ options: CommandOptions, _ problems: Problems, _ occasion: Occasion) {
        let agent = AgentSettingsReader(options, problems, occasion)
        let (reader, keys) = (agent.reader, AgentKeys.keys)
        let gateway = agent.gateway()
        self.gateway = gateway?.hostPort ?? HostPort(host: "localhost", port: WireConstant.defaultPort)
        self.exposes = agent.exposes()
        self.version1 = reader.value(keys.v1)
        let pins = reader.value(keys.pin)
        self.pins = reader.isOption(keys.pin) ? pins : pins + agent.pins(of: gateway)
        self.output = reader.value(keys.output)
        self.once = reader.value(keys.once)
        self.urlFile = agent.urlFile()
        self.execOnReady = Self.command(reader.value(keys.execOnReady))
        self.linkMSS = reader.value(keys.linkMSS)
        self.limits = LimitSettings(agent: reader)
        self.debug = reader.value(keys.debug)
        self.logFormat = reader.value(keys.logFormat)
        self.logsStreams = reader.value(keys.logStreams)
        self.stateDirectory = agent.stateDirectory()
        reader.finish(AgentKeys.self)
        // Last, because reading it may wait for a terminal or a pipe.
        self.token = agent.token(line: gateway?.token, isVersion1: self.version1)
        if self.version1 { agent.checkVersion1(self) }
    }

    /// Rejects paths that cannot be written, because scripts would wait for the file, and existing files that are not
    /// regular, such as devices, which would be replaced.
    static func check(urlFile path: String, _ place: String) throws(SettingsError) {
        var status = stat()
        if lstat(path, &status) == 0, status.st_mode & S_IFMT != S_IFREG {
            throw SettingsError(
                place, "'\(path)' is not a regular file and would be replaced: choose another path")
        }
        let directory = path.lastIndex(of: "/").map { $0 == path.startIndex ? "/" : String(path[..<$0]) } ?? "."
        guard !path.isEmpty, access(directory, W_OK | X_OK) == 0 else {
            throw SettingsError(
                place, "'\(path)' cannot be written: check that its directory exists and is writable")
        }
    }

    /// A single text is a shell command line; a list is a program with its arguments.
    private static func command(_ words: [String]) -> [String] {
        words.count == 1 ? ["/bin/sh", "-c", words[0]] : words
    }
}
