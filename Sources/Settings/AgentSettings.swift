internal import FoundationEssentials
import Glibc
package import ProxyProtocol
package import Wire

/// What the command line of `diglett` says; nil and empty mean not given.
package struct AgentOptions: Sendable {
    package var gateway: String?
    package var names: [String] = []
    package var backend: String?
    package var token: String?
    package var tokenFile: String?
    package var pins: [String] = []
    package var publicPort: String?
    package var proxyProtocol: String?
    package var output: String?
    package var once = false
    package var version1 = false
    package var debug = 0
    package var logFormat: String?
    package var logsStreams = false
    package var configuration: String?
    package var stateDirectory: String?
    package var urlFile: String?
    /// A line for the shell.
    package var execOnReady: String?
    /// Bytes.
    package var linkMSS: String?
    /// It is read again while the agent runs: nothing may wait for a writer or a terminal.
    package var isReload = false

    package init() {}
}

/// How an agent is to run: the command line over the configuration file over the defaults.
package struct AgentSettings: Sendable {
    package enum Output: String, Sendable, CaseIterable {
        /// For people.
        case text
        /// One JSON object a line, for programs.
        case json
    }

    /// A name and what it leads to.
    package struct Expose: Equatable, Sendable {
        package let name: Name
        package let backend: BackendAddress
        /// The wanted public port, or 0.
        package let port: UInt16
        /// The form in which the backend is told the visitor's address; nil: it is not told.
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
    /// Write a line to the log for each stream that is over.
    package let logsStreams: Bool
    package let stateDirectory: String
    /// Where the addresses of the names are told once all are reachable.
    package let urlFile: String?
    /// A program with its arguments that is then started; empty for none.
    package let execOnReady: [String]
    /// Its streams and their times; an agent has no others of these limits.
    package let limits: LimitSettings
    /// Bytes of the largest TCP segment of a link; nil: what the path allows.
    package let linkMSS: Int?

    /// The smallest that every host must take (RFC 9293, 3.7.1) up to what a jumbo frame of 9,000 bytes carries.
    private static let segmentRange = 536...8_960

    package init(_ options: AgentOptions) throws(SettingsError) {
        let file: TOMLFile?
        if let path = options.configuration {
            file = try TOMLFile(path: path, orPipe: !options.isReload)
        } else {
            file = nil
        }
        let section = file?.root
        let given = try (
            gateway: section?.string("gateway"), token: section?.string("token"),
            tokenFile: section?.path("token-file"), pins: section?.strings("pin"),
            output: section?.string("output"), once: section?.boolean("once"), version1: section?.boolean("v1"),
            debug: section?.debug(), stateDirectory: section?.path("state-dir")
        )
        let whenReady = try (file: section?.path("url-file"), command: section?.strings("exec-on-ready"))
        let log = try (format: section?.string("log-format"), streams: section?.boolean("log-streams"))
        self.limits = try LimitSettings(agent: section)
        let fileMSS = try section?.count("link-mss", in: Self.segmentRange)
        self.linkMSS = try options.linkMSS.map(Self.segment) ?? fileMSS
        let sections = try section?.sections("expose") ?? []
        try section?.finish()
        func place(_ option: String, _ isOption: Bool) -> String {
            isOption ? "option --\(option)" : section?.place(of: option) ?? "option --\(option)"
        }

        guard let gatewayText = options.gateway ?? given.gateway else {
            throw SettingsError("option -g", "missing: say which gateway, -g gateway.example.com for instance")
        }
        let gateway = try GatewayAddress(
            gatewayText, defaultPort: WireConstant.defaultPort, place: place("gateway", options.gateway != nil))
        self.gateway = gateway.hostPort

        self.exposes = try Self.exposes(options, sections)
        self.token = try Self.token(
            options, file: (given.token, given.tokenFile), line: gateway.token,
            isVersion1: options.version1 || given.version1 ?? false)
        let pins = options.pins.isEmpty ? (given.pins ?? []) + gateway.pins : options.pins
        for pin in pins where !Self.isPin(pin) {
            throw SettingsError(
                place("pin", !options.pins.isEmpty), "'\(pin)' is no pin: the gateway prints it as sha256/BASE64")
        }
        self.pins = pins
        let outputText = options.output ?? given.output ?? "text"
        guard let output = Output(rawValue: outputText) else {
            throw SettingsError(place("output", options.output != nil), "'\(outputText)' is neither text nor json")
        }
        self.output = output
        self.once = options.once || given.once ?? false
        self.version1 = options.version1 || given.version1 ?? false
        if self.version1 {
            let at = place("v1", options.version1)
            guard self.pins.isEmpty else {
                throw SettingsError(at, "version 1 has no key that could be pinned: leave the pin out")
            }
            guard self.exposes.count == 1 else {
                throw SettingsError(at, "a link of version 1 has one name: start an agent for each")
            }
            guard self.exposes.allSatisfy({ $0.port == 0 }) else {
                throw SettingsError(at, "version 1 cannot ask for a public port")
            }
            guard self.exposes.allSatisfy({ $0.proxyProtocol == nil }) else {
                throw SettingsError(at, "version 1 does not tell visitors' addresses: leave proxy-protocol out")
            }
        }
        self.urlFile = options.urlFile ?? whenReady.file
        if let file = self.urlFile { try Self.check(urlFile: file, place("url-file", options.urlFile != nil)) }
        guard options.execOnReady ?? whenReady.command?.first != "" else {
            throw SettingsError(
                place("exec-on-ready", options.execOnReady != nil), "'' is no command: write what the shell is to run")
        }
        self.execOnReady = Self.command(options.execOnReady.map { [$0] } ?? whenReady.command ?? [])
        if self.version1, self.urlFile != nil {
            throw SettingsError(
                place("url-file", options.urlFile != nil), "with version 1 the gateway does not tell where a name is")
        }
        self.debug = max(options.debug, given.debug ?? 0)
        self.logFormat = try LogFormat(
            options.logFormat ?? log.format ?? LogFormat.text.rawValue,
            place: place("log-format", options.logFormat != nil))
        self.logsStreams = options.logsStreams || log.streams ?? false
        self.stateDirectory = try StateDirectory.path(
            options.stateDirectory ?? given.stateDirectory, program: "diglett")
    }

    private static func segment(_ text: String) throws(SettingsError) -> Int {
        guard let bytes = Int(text), Self.segmentRange.contains(bytes) else {
            let (least, most) = (Self.segmentRange.lowerBound, Self.segmentRange.upperBound)
            throw SettingsError(
                "option --link-mss", "'\(PeerText.escaped(text))' is no number of bytes from \(least) to \(most)")
        }
        return bytes
    }

    /// What is there already must be such a file, and its directory must be there: whoever waits for it would wait in
    /// vain, and a device would be replaced.
    private static func check(urlFile path: String, _ place: String) throws(SettingsError) {
        var status = stat()
        if lstat(path, &status) == 0, status.st_mode & S_IFMT != S_IFREG {
            throw SettingsError(
                place, "'\(path)' is no regular file, which would be replaced by one: choose another path")
        }
        let directory = path.lastIndex(of: "/").map { $0 == path.startIndex ? "/" : String(path[..<$0]) } ?? "."
        guard !path.isEmpty, access(directory, W_OK | X_OK) == 0 else {
            throw SettingsError(
                place, "'\(path)' cannot be written: is there such a directory, and may you write to it?")
        }
    }

    /// A single text is a line for the shell, a list a program with its arguments.
    private static func command(_ words: [String]) -> [String] {
        words.count == 1 ? ["/bin/sh", "-c", words[0]] : words
    }

    /// Whether the text is `sha256/` and 32 bytes in Base64, in the one way in which they are written.
    static func isPin(_ text: String) -> Bool {
        let prefix = "sha256/"
        guard text.hasPrefix(prefix), let bytes = Data(base64Encoded: String(text.dropFirst(prefix.count))) else {
            return false
        }
        return bytes.count == 32 && prefix + bytes.base64EncodedString() == text
    }

    private static func exposes(
        _ options: AgentOptions, _ sections: [TOMLFile.Section]
    ) throws(SettingsError) -> [Expose] {
        var result: [Expose] = []
        func add(
            _ name: String, _ backend: String, _ port: UInt16, _ proxy: ProxyVersion?, _ place: String
        ) throws(SettingsError) {
            guard let valid = Name(name) else {
                throw SettingsError(place, "the name '\(PeerText.escaped(name))' is not valid: \(Name.rule)")
            }
            guard !result.contains(where: { $0.name == valid }) else {
                throw SettingsError(place, "the name '\(valid)' is given twice")
            }
            guard result.count < LimitSettings.nameRange.upperBound else {
                throw SettingsError(
                    place, "more than \(LimitSettings.nameRange.upperBound) names: start another agent for the rest")
            }
            let address = try BackendAddress(backend, place: place)
            result.append(Expose(name: valid, backend: address, port: port, proxyProtocol: proxy))
        }
        // Names on the command line replace those of the file: mixing them would surprise.
        guard !options.names.isEmpty || options.backend != nil else {
            for (option, value) in [("public-port", options.publicPort), ("proxy-protocol", options.proxyProtocol)]
            where value != nil {
                throw SettingsError(
                    "option --\(option)",
                    "belongs to names of the command line: in a file each table [[expose]] has its own \(option)")
            }
            for section in sections {
                guard let name = try section.string("name") else {
                    throw SettingsError(section.place(of: "name"), "a table [[expose]] needs a name")
                }
                guard let backend = try section.backend() else {
                    throw SettingsError(section.place(of: "name"), "'\(name)' needs a backend")
                }
                let number = try section.integer("public-port") ?? 0
                guard let port = UInt16(exactly: number) else {
                    throw SettingsError(section.place(of: "public-port"), "\(number) is no port")
                }
                let proxy = try section.string("proxy-protocol")
                let version = try Self.proxyVersion(proxy, place: section.place(of: "proxy-protocol"))
                try section.finish()
                try add(name, backend, port, version, section.place(of: "name"))
            }
            guard !result.isEmpty else {
                throw SettingsError("option -n", "missing: say under which name, -n example for instance")
            }
            return result
        }
        guard !options.names.isEmpty else {
            throw SettingsError("option -n", "missing: say under which name, -n example for instance")
        }
        var port: UInt16 = 0
        if let text = options.publicPort {
            guard let number = HostPort.port(text), number > 0 else {
                throw SettingsError("option --public-port", "'\(text)' is no port from 1 to 65535")
            }
            guard options.names.count == 1 else {
                throw SettingsError("option --public-port", "belongs to one name; several have theirs in a file, -c")
            }
            port = number
        }
        let proxy = try Self.proxyVersion(options.proxyProtocol, place: "option --proxy-protocol")
        var usesBackend = false
        for text in options.names {
            if let equals = text.firstIndex(of: "=") {
                try add(String(text[..<equals]), String(text[text.index(after: equals)...]), port, proxy, "option -n")
            } else {
                guard let backend = options.backend else {
                    throw SettingsError(
                        "backend", "missing: say what '\(PeerText.escaped(text))' leads to, localhost:9000 for instance"
                    )
                }
                usesBackend = true
                try add(text, backend, port, proxy, "option -n")
            }
        }
        if let backend = options.backend, !usesBackend {
            throw SettingsError("backend", "'\(backend)' belongs to no name: every -n has its own")
        }
        return result
    }

    private static func proxyVersion(_ text: String?, place: String) throws(SettingsError) -> ProxyVersion? {
        guard let text else { return nil }
        guard let version = ProxyVersion(rawValue: text) else {
            throw SettingsError(
                place, "'\(PeerText.escaped(text))' is no version of the PROXY protocol: write v1 or v2")
        }
        return version
    }
}

extension TOMLFile.Section {
    /// The text of the key `backend`, whose path is relative to the file like others.
    fileprivate func backend() throws(SettingsError) -> String? {
        try self.string("backend").map { text in
            let prefix = BackendAddress.unixPrefix
            return text.hasPrefix(prefix) ? prefix + self.beside(String(text.dropFirst(prefix.count))) : text
        }
    }
}
