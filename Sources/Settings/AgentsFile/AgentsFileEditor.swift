import Glibc
internal import Wire

/// Edits an ``AgentsFile`` line by line, preserving comments and order, and replaces the file atomically.
///
/// Each change is parsed again before it is saved. If a hand-written file cannot be edited this way, the result is an
/// error and not a damaged file.
package struct AgentsFileEditor {
    package let path: String
    private var lines: [Line]
    /// The line ending of new lines: that of the file's first line.
    private let lineEnd: String
    /// The byte order mark that some editors put at the beginning; empty without one.
    private let mark: String
    /// Held until the editor is released, so concurrent changes are not lost.
    private let lock: FileLock

    /// A line with its own ending, `\n` or `\r\n` (toml.io, 1.0).
    private struct Line {
        var text: String
        let end: String
    }

    /// Opens the file, which need not exist yet. Waits until other editors of the file are released.
    package init(path: String) throws(SettingsErrors) {
        self.path = path
        do throws(SettingsError) {
            guard !ServiceCredentials.contains(path) else {
                throw SettingsError(
                    path, "is a credential of the service: change its source file and restart the service")
            }
            if let target = FileAccess.linkTarget(path) {
                throw SettingsError(
                    path,
                    "is a symbolic link to \(target) and would be replaced by a file: pass the file itself, "
                        + "--agents-file \(target)")
            }
            if let slash = path.lastIndex(of: "/"), slash != path.startIndex {
                try FileAccess.makeDirectory(String(path[..<slash]))
            }
            self.lock = try FileLock(path: "\(path).lock", of: path)
            let text = FileAccess.exists(path) ? try AgentsFile.text(path: path) : ""
            (self.mark, self.lines, self.lineEnd) = Self.lines(of: text)
        } catch { throw SettingsErrors([error]) }
        _ = try self.content()
    }

    private static func lines(of text: String) -> (mark: String, lines: [Line], end: String) {
        // By scalars: to Swift `\r\n` is one Character, which is not a line feed.
        var rest = text.unicodeScalars[...]
        let hasMark = rest.first == TOMLScanner.mark
        if hasMark { rest.removeFirst() }
        var parts = rest.split(separator: "\n", omittingEmptySubsequences: false)
        let end = parts.count > 1 && parts[0].last == "\r" ? "\r\n" : "\n"
        let last = parts.removeLast()
        var lines = parts.map { part in
            part.last == "\r"
                ? Line(text: String(part.dropLast()), end: "\r\n") : Line(text: String(part), end: "\n")
        }
        if !last.isEmpty { lines.append(Line(text: String(last), end: end)) }
        return (hasMark ? String(TOMLScanner.mark) : "", lines, end)
    }

    /// The agents in the file, including unsaved changes.
    package func content() throws(SettingsErrors) -> [AgentEntry] {
        try AgentsFile(path: self.path, text: self.text).agents
    }

    private var text: String { self.mark + self.lines.map { $0.text + $0.end }.joined() }

    private func line(_ text: String) -> Line { Line(text: text, end: self.lineEnd) }

    package func agent(_ name: String) throws(SettingsErrors) -> AgentEntry {
        let known = try self.content()
        guard let agent = known.first(where: { $0.name == name }) else {
            let names = known.map(\.name).joined(separator: ", ")
            throw SettingsErrors([
                SettingsError(
                    "argument NAME",
                    "no agent '\(name)' in \(self.path)" + (names.isEmpty ? "" : "; known agents are \(names)"))
            ])
        }
        return agent
    }

    package mutating func add(_ agent: AgentEntry) throws(SettingsErrors) {
        if try self.content().contains(where: { $0.name == agent.name }) {
            throw SettingsErrors([
                SettingsError(
                    self.path,
                    "the agent '\(agent.name)' already exists: 'agent rotate' replaces its token, 'agent remove' removes it"
                )
            ])
        }
        let isNew = self.lines.isEmpty
        let table =
            ["", "[[agent]]", "name = \(Self.quoted(agent.name))"]
            + Self.values(of: agent).map { key, value in "\(key) = \(value)" }
        self.lines += ((isNew ? ["# The agents of this gateway: see 'diglett-server agent --help'."] : []) + table)
            .map(self.line)
        try self.save { $0.contains(agent) }
    }

    package mutating func remove(_ name: String) throws(SettingsErrors) {
        _ = try self.agent(name)
        let block = try self.block(of: name)
        self.lines.removeSubrange(block)
        // Keep one empty line between tables.
        while block.lowerBound > 0, block.lowerBound < self.lines.count, self.lines[block.lowerBound].text.isEmpty,
            self.lines[block.lowerBound - 1].text.isEmpty
        {
            self.lines.remove(at: block.lowerBound)
        }
        while self.lines.last?.text.isEmpty == true { self.lines.removeLast() }
        try self.save { !$0.contains { $0.name == name } }
    }

    /// Applies `change` to an agent and saves the keys that changed. Lines of other keys are preserved.
    package mutating func update(_ name: String, _ change: (inout AgentEntry) -> Void) throws(SettingsErrors) {
        let old = try self.agent(name)
        var agent = old
        change(&agent)
        let before = Dictionary(uniqueKeysWithValues: Self.values(of: old))
        let after = Dictionary(uniqueKeysWithValues: Self.values(of: agent))
        for key in Set(before.keys).union(after.keys).sorted() where before[key] != after[key] {
            if key == "pins", agent.pins.starts(with: old.pins), !old.pins.isEmpty,
                try self.append(agent.pins[old.pins.count...].map(Self.quoted), to: key, of: name)
            {
                continue
            }
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
            ("former-token", agent.formerTokenHash.map { self.quoted(self.hash($0)) }),
            ("former-v1-token", agent.formerVersion1TokenHash.map { self.quoted(self.hash($0)) }),
            ("former-token-until", agent.formerTokenUntil.map { self.quoted(Timestamp.text($0)) }),
            ("pins", list(agent.pins)), ("names", list(agent.names.map(\.text))),
            ("ports", list(agent.ports.map(\.description))),
            ("expires", agent.expires.map { self.quoted(Timestamp.text($0)) }),
            ("disabled", agent.isDisabled ? "true" : nil), ("max-links", agent.maxLinks.map { "\($0)" }),
            ("max-names", agent.maxNames.map { "\($0)" }), ("max-streams", agent.maxStreams.map { "\($0)" }),
        ]
        return values.compactMap { key, value in value.map { (key, $0) } }
    }

    /// No value written here contains quotes or control characters; names, pins and dates were validated.
    private static func quoted(_ text: String) -> String { "\"\(text)\"" }

    private static func hash(_ bytes: [UInt8]) -> String {
        "sha256:\(Hex.text(bytes))"
    }

    // MARK: - Lines

    /// The lines of an agent's table, without comments directly above the next table.
    private func block(of name: String) throws(SettingsErrors) -> Range<Int> {
        let headers = self.lines.indices.filter { self.lines[$0].text.drop(while: \.isWhitespace).hasPrefix("[") }
        for (position, start) in headers.enumerated() {
            var end = position + 1 < headers.count ? headers[position + 1] : self.lines.count
            if end < self.lines.count {
                while end > start + 1, self.isCommentOrEmpty(end - 1) { end -= 1 }
            }
            let hasName = self.lines[start..<end].contains { line in
                Self.key(of: line.text) == "name" && Self.value(of: line.text) == name
            }
            if hasName { return start..<end }
        }
        throw SettingsErrors([
            SettingsError(
                self.path, "the table of '\(name)' has a form that this command cannot edit: edit the file by hand")
        ])
    }

    private func isCommentOrEmpty(_ index: Int) -> Bool {
        let line = self.lines[index].text.drop(while: \.isWhitespace)
        return line.isEmpty || line.hasPrefix("#")
    }

    private static func key(of line: String) -> String? {
        guard let equals = line.firstIndex(of: "=") else { return nil }
        return line[..<equals].filter { !$0.isWhitespace && $0 != "\"" && $0 != "'" }
    }

    private static func value(of line: String) -> String? {
        guard let equals = line.firstIndex(of: "=") else { return nil }
        let text = line[line.index(after: equals)...].drop(while: \.isWhitespace)
        guard let quote = text.first, quote == "\"" || quote == "'" else { return nil }
        let parts = text.split(separator: quote, omittingEmptySubsequences: false)
        return parts.count >= 3 ? String(parts[1]) : nil
    }

    private mutating func set(_ key: String, of name: String, to value: String?) throws(SettingsErrors) {
        let block = try self.block(of: name)
        guard let line = block.first(where: { Self.key(of: self.lines[$0].text) == key }) else {
            guard let value else { return }
            let last = block.last { !self.isCommentOrEmpty($0) } ?? block.lowerBound
            return self.lines.insert(self.line("\(key) = \(value)"), at: last + 1)
        }
        let list = self.list(from: line, before: block.upperBound)
        let words = [value.map { "\(key) = \($0)" }, list.comment.isEmpty ? nil : list.comment].compactMap(\.self)
        let end = self.lines[list.end].end
        self.lines.replaceSubrange(
            line...list.end, with: words.isEmpty ? [] : [Line(text: words.joined(separator: " "), end: end)])
    }

    /// Appends elements to a list, preserving its other lines and comments.
    ///
    /// - Returns: false if the value is not a list in brackets.
    private mutating func append(_ values: [String], to key: String, of name: String) throws(SettingsErrors) -> Bool {
        let block = try self.block(of: name)
        guard let line = block.first(where: { Self.key(of: self.lines[$0].text) == key }) else { return false }
        let list = self.list(from: line, before: block.upperBound)
        guard let bracket = list.bracket, let (last, index) = list.last else { return false }
        let isOpen = ["[", ","].contains(self.lines[last].text[index])
        if last < list.end {
            // The bracket has its own line, so each element gets one too, indented like the element before it.
            let indent = last == line ? "    " : String(self.lines[last].text.prefix(while: \.isWhitespace))
            self.lines.insert(contentsOf: values.map { self.line("\(indent)\($0),") }, at: list.end)
            if !isOpen { self.lines[last].text.insert(",", at: self.lines[last].text.index(after: index)) }
        } else {
            let start = isOpen ? (self.lines[last].text[..<bracket].last == "," ? " " : "") : ", "
            let place = isOpen ? bracket : self.lines[last].text.index(after: index)
            self.lines[last].text.insert(contentsOf: start + values.joined(separator: ", "), at: place)
        }
        return true
    }

    /// The extent of a value. A list may span several lines.
    private struct List {
        /// Its last line.
        var end: Int
        /// The comment after the value on that line, from `#` on.
        var comment = ""
        /// Its closing bracket, on the last line.
        var bracket: String.Index?
        /// The last character before the bracket that is neither blank nor part of a comment.
        var last: (line: Int, index: String.Index)?
    }

    private func list(from first: Int, before limit: Int) -> List {
        var list = List(end: first)
        var depth = 0
        for line in first..<limit {
            list.end = line
            let text = self.lines[line].text
            var quote: Character?
            var isEscaped = false
            for index in text.indices {
                let character = text[index]
                if let open = quote {
                    // Only texts in double quotes have escapes (TOML 1.0).
                    if character == open, !isEscaped { quote = nil }
                    isEscaped = open == "\"" && character == "\\" && !isEscaped
                } else if character == "#" {
                    list.comment = depth == 0 ? String(text[index...]) : ""
                    break
                } else if character == "\"" || character == "'" {
                    quote = character
                } else if character == "[" {
                    depth += 1
                } else if character == "]" {
                    depth -= 1
                    if depth == 0 { list.bracket = index }
                }
                if depth > 0, !character.isWhitespace { list.last = (line, index) }
            }
            if depth <= 0 { break }
        }
        return list
    }

    private mutating func save(_ isRight: ([AgentEntry]) -> Bool) throws(SettingsErrors) {
        let agents: [AgentEntry]
        do throws(SettingsErrors) { agents = try self.content() } catch {
            // The user cannot see these lines in the file, so leave out their numbers.
            throw SettingsErrors(error.all.map { SettingsError(self.path, $0.reason) })
        }
        guard isRight(agents) else {
            throw SettingsErrors([
                SettingsError(self.path, "has a form that this command cannot edit: edit it by hand")
            ])
        }
        do throws(SettingsError) {
            let bytes = Array(self.text.utf8)
            guard bytes.count <= AgentsFile.maxBytes else {
                throw SettingsError(
                    self.path,
                    "nothing was changed: it would exceed \(AgentsFile.maxBytes) bytes, the most that a gateway reads; "
                        + "remove unused agents or comments")
            }
            try FileAccess.replace(self.path, with: bytes, durable: true)
        } catch { throw SettingsErrors([error]) }
    }
}
