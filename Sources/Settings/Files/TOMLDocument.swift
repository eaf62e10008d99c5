internal import CTOML

/// A parsed TOML document (toml.io, version 1.0), with the line of every value.
struct TOMLDocument {
    enum Value: Sendable {
        case table(Table)
        case array([Node])
        case string(String)
        case integer(Int)
        case float(Double)
        case boolean(Bool)
        /// A date or a time.
        case other
    }

    struct Node: Sendable {
        let value: Value
        /// Line of its key, or in an array of the value itself; counted from 1.
        let line: Int
    }

    struct Table: Sendable {
        fileprivate(set) var members: [String: Node] = [:]
    }

    struct ParseError: Error {
        let line: Int
        let reason: String
    }

    let root: Table

    init(_ text: String) throws(ParseError) {
        var scanner = TOMLScanner(text)
        try scanner.scan()
        let builder = Builder()
        var error = ctoml_error()
        var text = text
        let isDocument = text.withUTF8 { bytes in
            bytes.withMemoryRebound(to: CChar.self) { bytes in
                let reader = ctoml_reader(
                    context: Unmanaged.passUnretained(builder).toOpaque(), value: onValue, close: onClose)
                return ctoml_read(ctoml_text(bytes: bytes.baseAddress, count: bytes.count), reader, &error)
            }
        }
        guard isDocument else {
            let reason = withUnsafeBytes(of: error.text) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
            throw ParseError(line: Int(error.line), reason: Self.plain(reason))
        }
        self.root = builder.root
    }

    /// The reason without the parser's own terms. A number is not quoted, because it may be a token without quotes.
    private static func plain(_ reason: String) -> String {
        let prefix = "Error while parsing "
        guard reason.hasPrefix(prefix) else { return reason }
        let rest = reason.dropFirst(prefix.count)
        // cannot redefine existing KIND 'KEY' as KIND
        if let redefined = rest.firstRange(of: "cannot redefine existing ") {
            let words = rest[redefined.upperBound...]
            let former = words.prefix { $0 != "'" }
            let key = words.dropFirst(former.count + 1)
            guard let end = key.ranges(of: "' as ").last else {
                return "'\(key.hasSuffix("'") ? key.dropLast() : key)' was given twice"
            }
            let kinds = "as \(former)and as \(key[end.upperBound...])".replacing(
                "array-of-tables", with: "list of tables")
            return "'\(key[..<end.lowerBound])' was given twice, \(kinds)"
        }
        let kind = rest.prefix { $0 != ":" }
        if kind.contains("boolean") { return "the value is not valid: write true or false, or text in quotes" }
        if ["integer", "float"].contains(where: { kind.contains($0) }) {
            return "the value is not a valid number; write text in quotes"
        }
        if ["date", "time"].contains(where: { kind.contains($0) }) {
            return "the value is not valid: write text in quotes"
        }
        if rest.hasSuffix("could not determine value type") {
            return "the value is not valid: write true, false or a number, or text in quotes"
        }
        return "in this \(rest)"
    }

    /// Builds the document from the parser's callbacks.
    fileprivate final class Builder {
        private enum Content {
            case table(Table)
            case array([Node])
        }

        private struct Open {
            let key: String
            let line: Int
            var content: Content
        }

        private(set) var root = Table()
        /// Tables and arrays that were not closed yet, the outermost first.
        private var open: [Open] = []

        func add(_ value: ctoml_value) {
            let key = String(value.key)
            let line = Int(value.line)
            switch value.kind {
            case ctoml_table: self.open.append(Open(key: key, line: line, content: .table(Table())))
            case ctoml_array: self.open.append(Open(key: key, line: line, content: .array([])))
            case ctoml_string: self.add(.string(String(value.string)), key, line)
            case ctoml_integer: self.add(.integer(Int(value.integer)), key, line)
            case ctoml_float: self.add(.float(value.number), key, line)
            case ctoml_boolean: self.add(.boolean(value.boolean), key, line)
            default: self.add(.other, key, line)
            }
        }

        private func add(_ value: Value, _ key: String, _ line: Int) {
            guard var around = self.open.popLast() else {
                // The root table.
                if case .table(let table) = value { self.root = table }
                return
            }
            let node = Node(value: value, line: line)
            switch around.content {
            case .table(var table):
                around.content = .array([])
                table.members[key] = node
                around.content = .table(table)
            case .array(var nodes):
                around.content = .table(Table())
                nodes.append(node)
                around.content = .array(nodes)
            }
            self.open.append(around)
        }

        func close() {
            guard let last = self.open.popLast() else { return }
            switch last.content {
            case .table(let table): self.add(.table(table), last.key, last.line)
            case .array(let nodes): self.add(.array(nodes), last.key, last.line)
            }
        }
    }
}

extension String {
    fileprivate init(_ text: ctoml_text) {
        self.init(
            decoding: UnsafeRawBufferPointer(start: text.bytes, count: text.count), as: UTF8.self)
    }
}

private let onValue: @convention(c) (UnsafeMutableRawPointer?, UnsafePointer<ctoml_value>?) -> Void = {
    context, value in
    guard let context, let value else { return }
    Unmanaged<TOMLDocument.Builder>.fromOpaque(context)._withUnsafeGuaranteedRef { $0.add(value.pointee) }
}

private let onClose: @convention(c) (UnsafeMutableRawPointer?) -> Void = { context in
    guard let context else { return }
    Unmanaged<TOMLDocument.Builder>.fromOpaque(context)._withUnsafeGuaranteedRef { $0.close() }
}
