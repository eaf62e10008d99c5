import Glibc
internal import Suggestions
internal import Wire

/// A configuration file in TOML, read strictly: unknown keys and wrong types are errors that name file and line.
package struct TOMLFile {
    package let path: String
    private let document: TOMLDocument

    /// - Parameter orPipe: whether the file may be a pipe. Reading waits for its writer: only for use before the start.
    package init(path: String, orPipe: Bool = true) throws(SettingsError) {
        try self.init(path: path, text: try FileAccess.readText(path, atMost: 1 << 20, orPipe: orPipe))
    }

    package init(path: String, text: String) throws(SettingsError) {
        self.path = path
        do throws(TOMLDocument.ParseError) { self.document = try TOMLDocument(text) } catch {
            throw SettingsError("\(path):\(error.line)", error.reason)
        }
    }

    package var root: Section { Section(path: self.path, table: self.document.root, line: nil) }

    /// A table of the file.
    package struct Section: Sendable {
        private let path: String
        private let table: TOMLDocument.Table
        /// Line of its beginning; nil for the file itself.
        private let line: Int?

        fileprivate init(path: String, table: TOMLDocument.Table, line: Int?) {
            self.path = path
            self.table = table
            self.line = line
        }

        /// `file:line` of a key, or of the table in which it is missing, for errors.
        package func place(of key: String) -> String {
            guard let line = self.table.members[key]?.line ?? self.line else { return self.path }
            return "\(self.path):\(line)"
        }

        func has(_ key: String) -> Bool { self.table.members[key] != nil }

        package func string(_ key: String) throws(SettingsError) -> String? {
            guard let value = self.value(key) else { return nil }
            guard case .string(let string) = value else {
                throw self.wrongType(key, "text in quotes, \(key) = \"...\"")
            }
            return try self.whole(string, key)
        }

        /// A path. If it does not begin with `/`, it is relative to the directory of this file.
        package func path(_ key: String) throws(SettingsError) -> String? {
            try self.string(key).map { self.beside($0) }
        }

        /// Like `path`, for a path that is part of a text.
        func beside(_ path: String) -> String {
            // A file read through a pipe, as from `<(...)`, has no directory.
            guard !path.isEmpty, !path.hasPrefix("/"), path != "-", FileAccess.isRegular(self.path),
                let slash = self.path.lastIndex(of: "/")
            else { return path }
            return self.path[...slash] + path
        }

        package func integer(_ key: String) throws(SettingsError) -> Int? {
            guard let value = self.value(key) else { return nil }
            guard case .integer(let integer) = value else { throw self.wrongType(key, "a whole number") }
            return integer
        }

        /// An integer or a float.
        package func number(_ key: String) throws(SettingsError) -> Double? {
            guard let value = self.value(key) else { return nil }
            switch value {
            case .float(let number): return number
            case .integer(let number): return Double(number)
            default: throw self.wrongType(key, "a number")
            }
        }

        package func boolean(_ key: String) throws(SettingsError) -> Bool? {
            guard let value = self.value(key) else { return nil }
            guard case .boolean(let boolean) = value else { throw self.wrongType(key, "true or false") }
            return boolean
        }

        /// One text, or a list of texts.
        package func strings(_ key: String) throws(SettingsError) -> [String]? {
            guard let value = self.value(key) else { return nil }
            if case .string(let one) = value { return [try self.whole(one, key)] }
            guard case .array(let array) = value else { throw self.wrongType(key, "text or a list of texts") }
            var result: [String] = []
            for element in array {
                guard case .string(let text) = element.value else {
                    throw self.wrongType(key, "text or a list of texts")
                }
                result.append(try self.whole(text, key))
            }
            return result
        }

        /// Rejects zero bytes. The system ends a path, an argument or a host at a zero byte, and would use something
        /// other than what was checked.
        private func whole(_ text: String, _ key: String) throws(SettingsError) -> String {
            guard !text.utf8.contains(0) else {
                throw SettingsError(self.place(of: key), "'\(key)' contains a zero character, \\u0000: remove it")
            }
            return text
        }

        /// The table under `[key]`.
        package func section(_ key: String) throws(SettingsError) -> Section? {
            guard let value = self.value(key) else { return nil }
            guard case .table(let table) = value else { throw self.wrongType(key, "a table, [\(key)]") }
            return Section(path: self.path, table: table, line: self.table.members[key]?.line)
        }

        /// The tables under `[[key]]`.
        package func sections(_ key: String) throws(SettingsError) -> [Section] {
            guard let value = self.value(key) else { return [] }
            guard case .array(let array) = value else { throw self.wrongType(key, "a list of tables, [[\(key)]]") }
            var result: [Section] = []
            for element in array {
                guard case .table(let table) = element.value else {
                    throw self.wrongType(key, "a list of tables, [[\(key)]]")
                }
                result.append(Section(path: self.path, table: table, line: element.line))
            }
            return result
        }

        /// An error for every key that is not in `known`, by line.
        package func unknownKeys(beside known: Set<String>) -> [SettingsError] {
            guard !self.table.members.keys.allSatisfy(known.contains) else { return [] }
            let names = known.sorted()
            return self.table.members.filter { !known.contains($0.key) }
                .sorted { ($0.value.line, $0.key) < ($1.value.line, $1.key) }
                .map { key, _ in
                    SettingsError(
                        self.place(of: key), "unknown key '\(PeerText.escaped(key))'\(Self.help(key, names))",
                        knownKeys: names)
                }
        }

        /// The key that was meant, or all keys.
        private static func help(_ key: String, _ known: [String]) -> String {
            let question = Suggestion.question(about: key, among: known)
            return question.isEmpty ? "; known keys are \(known.joined(separator: ", "))" : question
        }

        private func value(_ key: String) -> TOMLDocument.Value? { self.table.members[key]?.value }

        private func wrongType(_ key: String, _ wanted: String) -> SettingsError {
            SettingsError(self.place(of: key), "'\(key)' must be \(wanted)")
        }
    }
}
