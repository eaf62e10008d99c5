/// The agents of a file while it is read. Reports agents with equal names, and patterns, pins and tokens that conflict:
/// only the first of two such agents could use them.
///
/// Each agent is compared only with those that can conflict with it: a gateway with thousands of agents reads the file
/// while it runs.
struct AgentEntries {
    private(set) var agents: [AgentEntry] = []
    /// The table of each agent, for errors.
    private var sections: [TOMLFile.Section] = []
    private var byName: [String: Int] = [:]
    private var byPin: [String: Int] = [:]
    private var byToken: [[UInt8]: Int] = [:]
    private var byVersion1Token: [[UInt8]: Int] = [:]
    private var patterns = PatternIndex()

    /// Adds the agent, and reports its conflicts with earlier agents.
    mutating func insert(_ agent: AgentEntry, _ section: TOMLFile.Section, _ problems: Problems) {
        if let former = self.byName[agent.name] {
            let place = self.sections[former].place(of: "name")
            return problems.add(section.place(of: "name"), "the agent '\(agent.name)' is already defined at \(place)")
        }
        let index = self.agents.count
        for name in agent.names {
            guard let (same, owner) = self.patterns.overlap(with: name) else { continue }
            problems.add(
                section.place(of: "names"),
                "'\(name)' of '\(agent.name)' overlaps with '\(same)' of '\(self.agents[owner].name)' "
                    + "(\(self.sections[owner].place(of: "names"))): two agents must not share a name")
        }
        for name in agent.names { self.patterns.insert(name, of: index) }
        for pin in agent.pins {
            self.note(pin, index, \.byPin) { owner in
                problems.add(section.place(of: "pins"), "the pin \(pin) belongs to '\(owner)' already")
            }
        }
        for (key, hash) in [("token", agent.tokenHash), ("former-token", agent.formerTokenHash)] {
            guard let hash else { continue }
            self.note(hash, index, \.byToken) { owner in
                problems.add(section.place(of: key), "the token belongs to '\(owner)' already")
            }
        }
        for (key, hash) in [
            ("v1-token", agent.version1TokenHash), ("former-v1-token", agent.formerVersion1TokenHash),
        ] {
            guard let hash else { continue }
            self.note(hash, index, \.byVersion1Token) { owner in
                problems.add(section.place(of: key), "the token belongs to '\(owner)' already")
            }
        }
        self.byName[agent.name] = index
        self.agents.append(agent)
        self.sections.append(section)
    }

    /// Calls `taken` with the name of another agent that already has the credential.
    private mutating func note<Key: Hashable>(
        _ key: Key, _ index: Int, _ owners: WritableKeyPath<AgentEntries, [Key: Int]>, taken: (String) -> Void
    ) {
        if let owner = self[keyPath: owners][key] {
            if owner != index { taken(self.agents[owner].name) }
        } else {
            self[keyPath: owners][key] = index
        }
    }
}
