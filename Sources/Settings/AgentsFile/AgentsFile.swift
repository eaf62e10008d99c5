internal import Wire

/// The agents of a gateway, `agents.toml`: a table `[[agent]]` for each (`docs/agents.md`).
package struct AgentsFile {
    /// Maximum size in bytes. Larger files are neither read nor written.
    package static let maxBytes = 4 << 20

    package let path: String
    package let agents: [AgentEntry]

    /// Reads the file. Throws if users other than its owner can read it.
    package init(path: String) throws(SettingsErrors) {
        let text: String
        do throws(SettingsError) { text = try Self.text(path: path) } catch { throw SettingsErrors([error]) }
        try self.init(path: path, text: text)
    }

    static func text(path: String) throws(SettingsError) -> String {
        try FileAccess.readText(path, atMost: self.maxBytes, secret: true)
    }

    /// Throws all errors, not only the first.
    package init(path: String, text: String) throws(SettingsErrors) {
        self.path = path
        let problems = Problems()
        var entries = AgentEntries()
        problems.attempt { () throws(SettingsError) in
            let reader = SettingsReader(try TOMLFile(path: path, text: text).root, problems)
            for section in reader.value(AgentsKeys.keys.agent) {
                if let agent = Self.agent(SettingsReader(section, problems)) {
                    entries.insert(agent, section, problems)
                }
            }
            reader.finish(AgentsKeys.self)
        }
        try problems.throwIfAny()
        self.agents = entries.agents
    }

    /// Nil if the table has no valid name.
    private static func agent(_ reader: SettingsReader) -> AgentEntry? {
        let keys = AgentEntryKeys.keys
        let name = reader.value(keys.name)
        var agent = AgentEntry(name: name ?? "")
        agent.tokenHash = reader.value(keys.token)
        agent.version1TokenHash = reader.value(keys.v1Token)
        self.readFormerTokens(&agent, reader)
        agent.pins = reader.value(keys.pins)
        agent.names = reader.value(keys.names)
        agent.ports = reader.value(keys.ports)
        agent.expires = reader.value(keys.expires)
        agent.isDisabled = reader.value(keys.disabled)
        agent.maxLinks = reader.value(keys.maxLinks)
        agent.maxNames = reader.value(keys.maxNames)
        agent.maxStreams = reader.value(keys.maxStreams)
        reader.finish(AgentEntryKeys.self)
        return name == nil ? nil : agent
    }

    private static func readFormerTokens(_ agent: inout AgentEntry, _ reader: SettingsReader) {
        let keys = AgentEntryKeys.keys
        let known = reader.problems.found.count
        agent.formerTokenHash = reader.value(keys.formerToken)
        agent.formerVersion1TokenHash = reader.value(keys.formerV1Token)
        agent.formerTokenUntil = reader.value(keys.formerTokenUntil)
        guard reader.problems.found.count == known else { return }
        let hash = agent.formerTokenHash != nil ? keys.formerToken : keys.formerV1Token
        switch (agent.formerTokenHash ?? agent.formerVersion1TokenHash, agent.formerTokenUntil) {
        case (.some, nil):
            reader.add(hash, "'\(hash.description.name)' needs 'former-token-until', when it ends")
        case (nil, .some):
            reader.add(keys.formerTokenUntil, "needs 'former-token', the hash of the token that ends then")
        default: break
        }
    }
}
