internal import Glibc
internal import ProxyProtocol
internal import Wire

/// Reads the settings of an agent that depend on several keys or on the system. Errors are added to `problems`, and a
/// harmless value is used instead.
struct AgentSettingsReader {
    let reader: SettingsReader
    private let occasion: AgentSettings.Occasion
    private let keys = AgentKeys.keys

    private var problems: Problems { self.reader.problems }

    init(_ options: CommandOptions, _ problems: Problems, _ occasion: AgentSettings.Occasion) {
        self.reader = SettingsReader(options, problems, orPipe: occasion != .reload)
        self.occasion = occasion
    }

    /// Verifies that others cannot read the configuration file, because it contains the token.
    private func checkIsPrivate() throws(SettingsError) {
        guard let path = self.reader.options.configuration else { return }
        // This read checks the permissions of the file.
        _ = try FileAccess.read(path, atMost: 1 << 20, secret: true, orPipe: self.occasion != .reload)
    }

    func gateway() -> GatewayAddress? {
        let gateway = self.reader.value(self.keys.gateway)
        if self.reader.isReadable, !self.reader.isGiven(self.keys.gateway) {
            self.addMissing(self.keys.gateway, file: "gateway", option: "-g gateway.example.com")
        }
        return gateway
    }

    /// Reports a key that neither the file nor the command line has.
    private func addMissing(_ key: Key<some Any>, file: String, option: String) {
        guard let path = self.reader.options.configuration else {
            return self.problems.add(key.description.optionPlace, "missing, for example \(option)")
        }
        let what = file.hasPrefix("[") ? "table" : "key"
        self.problems.add(path, "the \(what) '\(file)' is missing; on the command line it is \(option)")
    }

    /// The pins in the one-line form of the address.
    func pins(of gateway: GatewayAddress?) -> [String] {
        let pins = gateway?.pins ?? []
        for pin in pins {
            if let fault = PinText.fault(of: pin) { self.reader.add(self.keys.gateway, fault) }
        }
        return pins
    }

    /// Returns the first token that is found: on the command line, in a token file, in the configuration file, in the
    /// one-line gateway address, in the service's credentials, in the environment.
    ///
    /// - Parameter line: the token in the gateway's address.
    func token(line: String?, isVersion1: Bool) -> LoginToken {
        self.problems.value(.none) { () throws(SettingsError) in
            try self.findToken(line: line, isVersion1: isVersion1)
        }
    }

    private func findToken(line: String?, isVersion1: Bool) throws(SettingsError) -> LoginToken {
        let (token, file) = (self.reader.value(self.keys.token), self.reader.value(self.keys.tokenFile))
        let isFileFirst = self.reader.isOption(self.keys.tokenFile) || token == nil
        if let token, self.reader.isOption(self.keys.token) {
            return try LoginToken(token, place: self.reader.place(of: self.keys.token), isVersion1: isVersion1)
        }
        if let file, isFileFirst {
            let isOnce = file == "-" || FileAccess.isOtherThanRegular(file)
            // With other errors the agent does not start: do not prompt for a token or consume a pipe.
            if isOnce, self.occasion == .check || !self.problems.found.isEmpty { return .none }
            switch self.occasion {
            case .start, .check: return try self.tokenFile(file, isVersion1: isVersion1)
            case .reload where file == "-":
                throw SettingsError(
                    self.reader.place(of: self.keys.tokenFile), "standard input cannot be read again")
            case .reload: return try LoginToken.read(again: file, isVersion1: isVersion1)
            }
        }
        if let token {
            try self.checkIsPrivate()
            return try LoginToken(token, place: self.reader.place(of: self.keys.token), isVersion1: isVersion1)
        }
        if let line {
            if !self.reader.isOption(self.keys.gateway) { try self.checkIsPrivate() }
            return try LoginToken(line, place: self.reader.place(of: self.keys.gateway), isVersion1: isVersion1)
        }
        if let path = ServiceCredentials.path(of: "token") {
            return try LoginToken(path: path, isVersion1: isVersion1)
        }
        if let given = getenv("DIGLETT_TOKEN"), given[0] != 0 {
            return try LoginToken(String(cString: given), place: "DIGLETT_TOKEN", isVersion1: isVersion1)
        }
        return .none
    }

    /// Reads a token, and names the key of the configuration file in errors.
    private func tokenFile(_ path: String, isVersion1: Bool) throws(SettingsError) -> LoginToken {
        do throws(SettingsError) { return try LoginToken(path: path, isVersion1: isVersion1) } catch {
            guard !self.reader.isOption(self.keys.tokenFile) else { throw error }
            throw SettingsError(self.reader.place(of: self.keys.tokenFile), "'\(error.place)' \(error.reason)")
        }
    }

    func urlFile() -> String? {
        guard let file = self.reader.value(self.keys.urlFile) else { return nil }
        self.reader.attempt { () throws(SettingsError) in
            try AgentSettings.check(urlFile: file, self.reader.place(of: self.keys.urlFile))
        }
        return file
    }

    /// Empty on an error.
    func stateDirectory() -> String {
        let given = self.reader.value(self.keys.stateDir)
        return self.problems.value("") { () throws(SettingsError) in
            let directory = try StateDirectory.path(given, program: "diglett")
            self.problems.need(.stateDirectory(directory), at: self.reader.place(of: self.keys.stateDir))
            return directory
        }
    }

    /// The names on the command line replace those in the file: mixing both would surprise.
    func exposes() -> [AgentSettings.Expose] {
        let backend = ExposeKeys.keys.backend
        let hasOptions = self.reader.isOption(self.keys.expose) || !self.reader.options[backend].isEmpty
        let found = self.problems.found.count
        // The file is checked in both cases.
        let inFile = self.fileExposes()
        if !hasOptions { self.checkNameOptions() }
        let exposes = hasOptions ? self.optionExposes() : inFile
        // An invalid name does not count as missing.
        if exposes.isEmpty, self.reader.isReadable, self.problems.found.count == found {
            self.addMissing(self.keys.expose, file: "[[expose]]", option: "-n example")
        }
        return exposes
    }

    /// Options about names need names on the command line.
    private func checkNameOptions() {
        let keys = ExposeKeys.keys
        for key in [keys.publicPort, keys.proxyProtocol] as [any DescribedKey] where !self.reader.options[key].isEmpty {
            let name = key.description.name
            self.problems.add(
                key.description.optionPlace,
                "applies to names of the command line only: in a file, each table [[expose]] has its own \(name)")
        }
    }

    private func fileExposes() -> [AgentSettings.Expose] {
        let keys = ExposeKeys.keys
        var list = ExposeList(self.problems)
        for section in SettingsReader(self.reader.section, self.problems).value(self.keys.expose) {
            let reader = SettingsReader(section, self.problems)
            let (name, backend) = (reader.value(keys.name), reader.value(keys.backend))
            let (port, proxy) = (reader.value(keys.publicPort), reader.value(keys.proxyProtocol))
            reader.finish(ExposeKeys.self)
            guard let name else { continue }
            guard let backend else {
                if !reader.isGiven(keys.backend) {
                    reader.add(keys.name, "'\(name)' has no backend: add backend = \"localhost:9000\"")
                }
                continue
            }
            list.add(
                AgentSettings.Expose(name: name, backend: backend, port: port ?? 0, proxyProtocol: proxy),
                place: reader.place(of: keys.name))
        }
        return list.exposes
    }

    private func optionExposes() -> [AgentSettings.Expose] {
        let (keys, place) = (ExposeKeys.keys, self.keys.expose.description.optionPlace)
        let names = self.reader.options[self.keys.expose]
        let reader = SettingsReader(options: self.reader.options, self.problems)
        let (port, proxy) = (reader.value(keys.publicPort), reader.value(keys.proxyProtocol))
        if port != nil, names.count > 1 {
            reader.add(keys.publicPort, "applies to one name; for several names use a file (-c)")
        }
        let isShared = names.contains { !$0.contains("=") }
        let shared = isShared && reader.isGiven(keys.backend) ? reader.value(keys.backend) : nil
        if !isShared, !names.isEmpty, let text = self.reader.options[keys.backend].last {
            reader.add(keys.backend, "'\(PeerText.escaped(text))' is not used: every -n has its own backend")
        }
        var list = ExposeList(self.problems)
        for text in names {
            self.reader.attempt { () throws(SettingsError) in
                let backend: BackendAddress
                let equals = text.firstIndex(of: "=")
                if let equals {
                    backend = try BackendAddress(String(text[text.index(after: equals)...]), place: place)
                } else if let shared {
                    backend = shared
                } else {
                    // The backend's error was reported.
                    guard !reader.isGiven(keys.backend) else { return }
                    throw SettingsError(
                        reader.place(of: keys.backend),
                        "missing: the service that '\(PeerText.escaped(text))' forwards to, for example localhost:9000")
                }
                let name = try AgentSettings.Expose.name(String(text[..<(equals ?? text.endIndex)]), place: place)
                list.add(
                    AgentSettings.Expose(name: name, backend: backend, port: port ?? 0, proxyProtocol: proxy),
                    place: place)
            }
        }
        return list.exposes
    }

    /// Reports settings that version 1 does not support.
    func checkVersion1(_ settings: AgentSettings) {
        if !settings.pins.isEmpty {
            self.reader.add(self.keys.v1, "version 1 has no gateway key: leave out the pin")
        }
        if settings.exposes.count > 1 {
            self.reader.add(self.keys.v1, "version 1 supports one name per agent: start an agent for each name")
        }
        if settings.exposes.contains(where: { $0.port != 0 }) {
            self.reader.add(self.keys.v1, "version 1 cannot request a public port")
        }
        if settings.exposes.contains(where: { $0.proxyProtocol != nil }) {
            self.reader.add(self.keys.v1, "version 1 does not transmit visitors' addresses: leave out proxy-protocol")
        }
        if settings.urlFile != nil {
            self.reader.add(self.keys.urlFile, "version 1 does not transmit the public address")
        }
    }
}

/// Collects names and reports duplicates.
private struct ExposeList {
    private(set) var exposes: [AgentSettings.Expose] = []
    private var names: Set<Name> = []
    private let problems: Problems

    init(_ problems: Problems) { self.problems = problems }

    mutating func add(_ expose: AgentSettings.Expose, place: String) {
        guard self.names.insert(expose.name).inserted else {
            return self.problems.add(place, "the name '\(expose.name)' was given twice")
        }
        guard self.exposes.count < LimitSettings.nameRange.upperBound else {
            return self.problems.add(
                place, "more than \(LimitSettings.nameRange.upperBound) names: start another agent for the rest")
        }
        self.exposes.append(expose)
    }
}

extension AgentSettings.Expose {
    static func name(_ text: String, place: String) throws(SettingsError) -> Name {
        // A suggestion would repeat the token in another form.
        guard !AgentToken.looksLikeOne(text) else {
            throw SettingsError(place, "this is a token, not a name: pass it with --token-file or -t")
        }
        guard let name = Name(text) else {
            throw SettingsError(place, Name.fault(of: text))
        }
        return name
    }
}
