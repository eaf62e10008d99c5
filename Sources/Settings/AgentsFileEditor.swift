import Glibc
internal import Wire

/// Changes an ``AgentsFile`` line by line, so that comments and order stay, and writes it beside and renames it.
///
/// Each change is read back before it is saved: what a hand-written file makes impossible is an error, not a damage.
package struct AgentsFileEditor {
    package let path: String
    private var lines: [String]
    /// Held until the editor is gone, so that of two changes at once none is lost.
    private let lock: FileLock

    /// Opens the file, also when it does not exist yet.
    package init(path: String) throws(SettingsErrors) {
        self.path = path
        do throws(SettingsError) {
            guard !ServiceCredentials.contains(path) else {
                throw SettingsError(
                    path, "is a credential of the service: change the file that it is made of, and restart the service")
            }
            if let slash = path.lastIndex(of: "/"), slash != path.startIndex {
                try FileAccess.makeDirectory(String(path[..<slash]))
            }
            self.lock = try FileLock(path: "\(path).lock")
            let text =
                FileAccess.exists(path)
                ? String(decoding: try FileAccess.read(path, most: 4 << 20, secret: true), as: UTF8.self) : ""
            self.lines = text.split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
        } catch { throw SettingsErrors([error]) }
        if self.lines.last == "" { self.lines.removeLast() }
        _ = try self.content()
    }

    /// The agents as they stand.
    package func content() throws(SettingsErrors) -> [AgentEntry] {
        try AgentsFile(path: self.path, text: self.text).agents
    }

    private var text: String { self.lines.map { $0 + "\n" }.joined() }

    package func agent(_ name: String) throws(SettingsErrors) -> AgentEntry {
        let known = try self.content()
        guard let agent = known.first(where: { $0.name == name }) else {
            let names = known.map(\.name).joined(separator: ", ")
            throw SettingsErrors([
                SettingsError(self.path, "there is no agent '\(name)'" + (names.isEmpty ? "" : "; there are \(names)"))
            ])
        }
        return agent
    }

    package mutating func add(_ agent: AgentEntry) throws(SettingsErrors) {
        if try self.content().contains(where: { $0.name == agent.name }) {
            throw SettingsErrors([
                SettingsError(
                    self.path,
                    "the agent '\(agent.name)' exists: 'agent rotate' gives it a new token, 'agent remove' takes it out"
                )
            ])
        }
        if self.lines.isEmpty { self.lines.append("# The agents of this gateway: see 'diglett-server agent --help'.") }
        self.lines.append("")
        self.lines.append("[[agent]]")
        self.lines.append("name = \(Self.quoted(agent.name))")
        for (key, value) in Self.values(of: agent) { self.lines.append("\(key) = \(value)") }
        try self.save { $0.contains(agent) }
    }

    package mutating func remove(_ name: String) throws(SettingsErrors) {
        _ = try self.agent(name)
        let block = try self.block(of: name)
        self.lines.removeSubrange(block)
        // One empty line between tables is enough.
        while block.lowerBound > 0, block.lowerBound < self.lines.count, self.lines[block.lowerBound].isEmpty,
            self.lines[block.lowerBound - 1].isEmpty
        {
            self.lines.remove(at: block.lowerBound)
        }
        while self.lines.last?.isEmpty == true { self.lines.removeLast() }
        try self.save { !$0.contains { $0.name == name } }
    }

    /// Writes what `change` makes of an agent; other keys' lines stay as they are.
    package mutating func update(_ name: String, _ change: (inout AgentEntry) -> Void) throws(SettingsErrors) {
        let old = try self.agent(name)
        var agent = old
        change(&agent)
        let before = Dictionary(uniqueKeysWithValues: Self.values(of: old))
        let after = Dictionary(uniqueKeysWithValues: Self.values(of: agent))
        for key in Set(before.keys).union(after.keys).sorted() where before[key] != after[key] {
            try self.set(key, of: name, to: after[key])
        }
        try self.save { $0.contains(agent) }
    }

    private static func values(of agent: AgentEntry) -> [(String, String)] {
        func list(_ texts: [String]) -> String? {
            texts.isEmpty ? nil : "[" + texts.map(self.quoted).joined(separator: ", ") + "]"
        }
        let values: [(String, String?)] = [
            ("token", agent.tokenHash.map { self.quoted(self.hash($0)) }),
            ("v1-token", agent.version1TokenHash.map { self.quoted(self.hash($0)) }),
            ("pins", list(agent.pins)), ("names", list(agent.names.map(\.text))),
            ("ports", list(agent.ports.map(\.description))),
            ("expires", agent.expires.map { self.quoted(Timestamp.text($0)) }),
            ("disabled", agent.isDisabled ? "true" : nil), ("max-links", agent.mostLinks.map { "\($0)" }),
            ("max-names", agent.mostNames.map { "\($0)" }), ("max-streams", agent.mostStreams.map { "\($0)" }),
        ]
        return values.compactMap { key, value in value.map { (key, $0) } }
    }

    /// Everything that is written here has neither quotes nor control characters; names, pins and dates were checked.
    private static func quoted(_ text: String) -> String { "\"\(text)\"" }

    private static func hash(_ bytes: [UInt8]) -> String {
        "sha256:\(Hex.text(bytes))"
    }

    // MARK: - Lines

    /// The lines of an agent's table, without the comments that stand right above the next one.
    private func block(of name: String) throws(SettingsErrors) -> Range<Int> {
        let headers = self.lines.indices.filter { self.lines[$0].drop(while: \.isWhitespace).hasPrefix("[") }
        for (position, start) in headers.enumerated() {
            var end = position + 1 < headers.count ? headers[position + 1] : self.lines.count
            if end < self.lines.count {
                while end > start + 1, self.isCommentOrEmpty(end - 1) { end -= 1 }
            }
            let hasName = self.lines[start..<end].contains { line in
                Self.key(of: line) == "name" && Self.value(of: line) == name
            }
            if hasName { return start..<end }
        }
        throw SettingsErrors([
            SettingsError(
                self.path, "the table of '\(name)' is written in a way that cannot be changed here: edit it by hand")
        ])
    }

    private func isCommentOrEmpty(_ index: Int) -> Bool {
        let line = self.lines[index].drop(while: \.isWhitespace)
        return line.isEmpty || line.hasPrefix("#")
    }

    private static func key(of line: String) -> String? {
        guard let equals = line.firstIndex(of: "=") else { return nil }
        return line[..<equals].filter { !$0.isWhitespace && $0 != "\"" }
    }

    private static func value(of line: String) -> String? {
        let parts = line.split(separator: "\"", omittingEmptySubsequences: false)
        return parts.count >= 3 ? String(parts[1]) : nil
    }

    private mutating func set(_ key: String, of name: String, to value: String?) throws(SettingsErrors) {
        let block = try self.block(of: name)
        guard let line = block.first(where: { Self.key(of: self.lines[$0]) == key }) else {
            guard let value else { return }
            let last = block.last { !self.isCommentOrEmpty($0) } ?? block.lowerBound
            return self.lines.insert("\(key) = \(value)", at: last + 1)
        }
        // A list may go on over several lines.
        var end = line
        var (depth, comment) = Self.scan(self.lines[line], depth: 0)
        while depth > 0, end + 1 < block.upperBound {
            end += 1
            (depth, comment) = Self.scan(self.lines[end], depth: depth)
        }
        let replacement = value.map { ["\(key) = \($0)" + (comment.isEmpty ? "" : " \(comment)")] } ?? []
        self.lines.replaceSubrange(line...end, with: replacement)
    }

    /// How many brackets are open after a line, and the comment at its end.
    private static func scan(_ line: String, depth: Int) -> (depth: Int, comment: String) {
        var depth = depth
        var isText = false
        for index in line.indices {
            switch line[index] {
            case "\"": isText.toggle()
            case "[" where !isText: depth += 1
            case "]" where !isText: depth -= 1
            case "#" where !isText: return (depth, String(line[index...]))
            default: break
            }
        }
        return (depth, "")
    }

    private mutating func save(_ isRight: ([AgentEntry]) -> Bool) throws(SettingsErrors) {
        guard isRight(try self.content()) else {
            throw SettingsErrors([
                SettingsError(self.path, "is written in a way that cannot be changed here: edit it by hand")
            ])
        }
        do throws(SettingsError) {
            try FileAccess.replace(self.path, with: Array(self.text.utf8), durable: true)
        } catch { throw SettingsErrors([error]) }
    }
}
