internal import Wire

/// The agents of a gateway, `agents.toml`: a table `[[agent]]` for each (`docs/modules.md`).
package struct AgentsFile {
    /// More than this is neither read nor written.
    package static let maxBytes = 4 << 20

    package let path: String
    package let agents: [AgentEntry]

    /// Reads the file; others than its owner must not be able to.
    package init(path: String) throws(SettingsErrors) {
        let text: String
        do throws(SettingsError) { text = try Self.text(path: path) } catch { throw SettingsErrors([error]) }
        try self.init(path: path, text: text)
    }

    static func text(path: String) throws(SettingsError) -> String {
        try FileAccess.readText(path, most: self.maxBytes, secret: true)
    }

    /// Finds everything that is wrong, not only the first of it.
    package init(path: String, text: String) throws(SettingsErrors) {
        self.path = path
        let problems = Problems()
        var entries = AgentEntries()
        problems.attempt { () throws(SettingsError) in
            let root = try TOMLFile(path: path, text: text).root
            for section in try root.sections("agent") {
                if let agent = Self.agent(section, problems) { entries.insert(agent, section, problems) }
            }
            root.finish(problems)
        }
        try problems.throwIfAny()
        self.agents = entries.agents
    }

    /// Nil when it has no usable name.
    private static func agent(_ section: TOMLFile.Section, _ problems: Problems) -> AgentEntry? {
        var name: String?
        problems.attempt { () throws(SettingsError) in
            name = try section.string("name")
            guard let given = name else {
                throw SettingsError(section.place(of: "name"), "a table [[agent]] needs a name")
            }
            guard AgentEntry.isValid(name: given) else {
                name = nil
                throw SettingsError(section.place(of: "name"), "'\(given)': \(AgentEntry.nameRule)")
            }
        }
        var agent = AgentEntry(name: name ?? "")
        problems.attempt { () throws(SettingsError) in agent.tokenHash = try self.hash(section, "token") }
        problems.attempt { () throws(SettingsError) in agent.version1TokenHash = try self.hash(section, "v1-token") }
        self.readFormerTokens(&agent, section, problems)
        problems.attempt { () throws(SettingsError) in
            agent.pins = try section.strings("pins") ?? []
            for pin in agent.pins where !AgentSettings.isPin(pin) {
                problems.add(section.place(of: "pins"), "'\(pin)' is no pin: 'diglett key' prints it as sha256/BASE64")
            }
        }
        problems.attempt { () throws(SettingsError) in
            for text in try section.strings("names") ?? [] {
                guard let pattern = NamePattern(text) else {
                    problems.add(section.place(of: "names"), "'\(text)': \(NamePattern.rule)")
                    continue
                }
                agent.names.append(pattern)
            }
        }
        problems.attempt { () throws(SettingsError) in
            for text in try section.strings("ports") ?? [] {
                problems.attempt { () throws(SettingsError) in
                    agent.ports.append(try PortRange(text, place: section.place(of: "ports")))
                }
            }
        }
        problems.attempt { () throws(SettingsError) in agent.expires = try self.time(section, "expires") }
        problems.attempt { () throws(SettingsError) in agent.isDisabled = try section.boolean("disabled") ?? false }
        problems.attempt { () throws(SettingsError) in agent.maxLinks = try self.limit(section, "max-links") }
        problems.attempt { () throws(SettingsError) in agent.maxNames = try self.limit(section, "max-names", 4_096) }
        problems.attempt { () throws(SettingsError) in agent.maxStreams = try self.limit(section, "max-streams") }
        section.finish(problems)
        return name == nil ? nil : agent
    }

    private static func readFormerTokens(
        _ agent: inout AgentEntry, _ section: TOMLFile.Section, _ problems: Problems
    ) {
        let known = problems.found.count
        problems.attempt { () throws(SettingsError) in
            agent.formerTokenHash = try self.hash(section, "former-token")
        }
        problems.attempt { () throws(SettingsError) in
            agent.formerVersion1TokenHash = try self.hash(section, "former-v1-token")
        }
        problems.attempt { () throws(SettingsError) in
            agent.formerTokenUntil = try self.time(section, "former-token-until")
        }
        guard problems.found.count == known else { return }
        let key = agent.formerTokenHash != nil ? "former-token" : "former-v1-token"
        switch (agent.formerTokenHash ?? agent.formerVersion1TokenHash, agent.formerTokenUntil) {
        case (.some, nil): problems.add(section.place(of: key), "'\(key)' needs 'former-token-until', when it ends")
        case (nil, .some):
            problems.add(
                section.place(of: "former-token-until"), "needs 'former-token', the hash of the token that ends then")
        default: break
        }
    }

    private static func time(_ section: TOMLFile.Section, _ key: String) throws(SettingsError) -> Int64? {
        guard let text = try section.string(key) else { return nil }
        guard let seconds = Timestamp.seconds(text) else {
            throw SettingsError(
                section.place(of: key), "'\(text)' is no date: write 2027-02-21 or 2027-02-21T12:00:00Z")
        }
        return seconds
    }

    private static func limit(
        _ section: TOMLFile.Section, _ key: String, _ most: Int = 65_535
    ) throws(SettingsError) -> Int? {
        guard let number = try section.integer(key) else { return nil }
        guard (1...most).contains(number) else {
            throw SettingsError(section.place(of: key), "'\(key)' must be a number from 1 to \(most)")
        }
        return number
    }

    /// `sha256:` and 64 hexadecimal digits.
    private static func hash(_ section: TOMLFile.Section, _ key: String) throws(SettingsError) -> [UInt8]? {
        guard let text = try section.string(key) else { return nil }
        guard text.hasPrefix("sha256:"), let bytes = Hex.bytes(text.dropFirst(7), count: AgentEntry.hashSize) else {
            // Never the text itself: somebody may have written the token there.
            throw SettingsError(
                section.place(of: key),
                "is not the hash of a token, sha256: and 64 hexadecimal digits: "
                    + "make token and entry with 'diglett-server agent add' or 'agent rotate'")
        }
        return bytes
    }
}
