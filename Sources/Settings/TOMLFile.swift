import Glibc
internal import TOMLKit

/// A configuration file in TOML, read strictly: a key that nobody asked for, or a value of another type, is an error
/// that names file and line.
package struct TOMLFile {
    package let path: String
    private let lines: [Substring]
    private let table: TOMLTable

    package init(path: String) throws(SettingsError) {
        let bytes = try FileAccess.read(path, most: 1 << 20)
        guard let text = String(validating: bytes, as: UTF8.self) else {
            throw SettingsError(path, "is not a text in UTF-8")
        }
        try self.init(path: path, text: text)
    }

    package init(path: String, text: String) throws(SettingsError) {
        self.path = path
        self.lines = text.split(separator: "\n", omittingEmptySubsequences: false)
        do { self.table = try TOMLTable(string: text) } catch let error as TOMLParseError {
            throw SettingsError("\(path):\(error.source.begin.line)", error.description)
        } catch { throw SettingsError(path, "\(error)") }
    }

    package var root: Section { Section(file: self, table: self.table, header: nil, number: 0) }

    /// A table of the file, and which of its keys were asked for.
    package final class Section {
        private let file: TOMLFile
        private let table: TOMLTable
        /// The header `[[header]]` under which the table stands, nil for the top of the file.
        private let header: String?
        /// Which of the tables with this header it is, from 0.
        private let number: Int
        private var known: Set<String> = []

        fileprivate init(file: TOMLFile, table: TOMLTable, header: String?, number: Int) {
            self.file = file
            self.table = table
            self.header = header
            self.number = number
        }

        /// `file:line` of a key, for error texts.
        package func place(of key: String) -> String {
            guard let line = self.file.line(of: key, header: self.header, number: self.number) else {
                return self.file.path
            }
            return "\(self.file.path):\(line)"
        }

        package func string(_ key: String) throws(SettingsError) -> String? {
            guard let value = self.value(key) else { return nil }
            guard let string = value.string else { throw self.wrongType(key, "a text in quotes") }
            return string
        }

        package func integer(_ key: String) throws(SettingsError) -> Int? {
            guard let value = self.value(key) else { return nil }
            guard let integer = value.int else { throw self.wrongType(key, "a whole number") }
            return integer
        }

        /// A number, whole or not.
        package func number(_ key: String) throws(SettingsError) -> Double? {
            guard let value = self.value(key) else { return nil }
            guard let number = value.double ?? value.int.map(Double.init) else { throw self.wrongType(key, "a number") }
            return number
        }

        package func boolean(_ key: String) throws(SettingsError) -> Bool? {
            guard let value = self.value(key) else { return nil }
            guard let boolean = value.bool else { throw self.wrongType(key, "true or false") }
            return boolean
        }

        /// One text, or several in brackets.
        package func strings(_ key: String) throws(SettingsError) -> [String]? {
            guard let value = self.value(key) else { return nil }
            if let one = value.string { return [one] }
            guard let array = value.array else { throw self.wrongType(key, "a text or a list of texts") }
            var result: [String] = []
            for element in array {
                guard let text = element.string else { throw self.wrongType(key, "a text or a list of texts") }
                result.append(text)
            }
            return result
        }

        /// The table under `[key]`.
        package func section(_ key: String) throws(SettingsError) -> Section? {
            guard let value = self.value(key) else { return nil }
            guard let table = value.table else { throw self.wrongType(key, "a table, [\(key)]") }
            return Section(file: self.file, table: table, header: key, number: 0)
        }

        /// The tables under `[[key]]`.
        package func sections(_ key: String) throws(SettingsError) -> [Section] {
            guard let value = self.value(key) else { return [] }
            guard let array = value.array else { throw self.wrongType(key, "a list of tables, [[\(key)]]") }
            var result: [Section] = []
            for element in array {
                guard let table = element.table else { throw self.wrongType(key, "a list of tables, [[\(key)]]") }
                result.append(Section(file: self.file, table: table, header: key, number: result.count))
            }
            return result
        }

        /// Complains about keys that nobody has asked for.
        package func finish() throws(SettingsError) {
            let known = self.known.sorted()
            for key in self.table.keys.sorted() where !self.known.contains(key) {
                throw SettingsError(
                    self.place(of: key), "unknown key '\(key)'; known here are \(known.joined(separator: ", "))",
                    knownKeys: known)
            }
        }

        private func value(_ key: String) -> (any TOMLValueConvertible)? {
            self.known.insert(key)
            guard self.table.contains(key: key) else { return nil }
            let value: (any TOMLValueConvertible)? = self.table[key]
            return value
        }

        private func wrongType(_ key: String, _ wanted: String) -> SettingsError {
            SettingsError(self.place(of: key), "'\(key)' must be \(wanted)")
        }
    }

    /// The line on which a key stands. TOMLKit tells no positions of values, so the text is searched for it.
    private func line(of key: String, header: String?, number: Int) -> Int? {
        var current: String?
        var seen = -1
        for (index, raw) in self.lines.enumerated() {
            let line = raw.drop { $0 == " " || $0 == "\t" }
            if line.hasPrefix("[") {
                let name = line.drop { $0 == "[" }.prefix { $0 != "]" && $0 != " " }
                current = String(name)
                if current == header { seen += 1 }
                // A table that nobody knows stands in its own header.
                if header == nil, name == key || name.hasPrefix("\(key).") { return index + 1 }
                continue
            }
            guard current == header, header == nil || seen == number else { continue }
            let written = line.prefix { $0 != "=" && $0 != " " && $0 != "\t" && $0 != "." }
            if written == key || written == "\"\(key)\"" { return index + 1 }
        }
        return nil
    }
}
