/// Checks a text before toml++ (3.3.0) parses it. It finds input that crashes toml++: keys with so many parts that the
/// stack overflows, and non-ASCII characters outside of strings. TOML does not allow the latter (toml.io, 1.0, Keys), and
/// they lead toml++ into code that it declares unreachable. It also finds strings that are not closed, and where they
/// begin; toml++ reports only where they end.
struct TOMLScanner {
    /// Parts of one key, `a.b.c`. Each part nests one more table.
    static let maxParts = 64

    /// A byte order mark, which some editors put at the beginning of a text. toml++ skips it there too.
    static let mark: Unicode.Scalar = "\u{FEFF}"

    private enum State {
        case plain
        case comment
        /// Inside quotes of this kind, one or three of them.
        case text(quote: UInt8, isLong: Bool, line: Int)
    }

    private let bytes: [UInt8]
    private var index = 0
    private var line = 1
    private var dots = 0
    private var state = State.plain

    init(_ text: String) {
        self.bytes = Array(text.utf8)
        if text.unicodeScalars.first == Self.mark { self.index = UTF8.width(Self.mark) }
    }

    mutating func scan() throws(TOMLDocument.ParseError) {
        while self.index < self.bytes.count {
            let byte = self.bytes[self.index]
            if byte == UInt8(ascii: "\n") { self.line += 1 }
            switch self.state {
            case .plain: try self.plain(byte)
            case .comment: if byte == UInt8(ascii: "\n") { self.state = .plain }
            case .text(let quote, let isLong, let line): try self.text(byte, quote, isLong, line)
            }
            self.index += 1
        }
        if case .text(_, _, let line) = self.state { throw Self.unclosed(line) }
    }

    private static func unclosed(_ line: Int) -> TOMLDocument.ParseError {
        TOMLDocument.ParseError(line: line, reason: "the string that begins on line \(line) is not closed")
    }

    private mutating func plain(_ byte: UInt8) throws(TOMLDocument.ParseError) {
        switch byte {
        case UInt8(ascii: "\""), UInt8(ascii: "'"):
            let isLong = self.isTriple(byte)
            if isLong { self.index += 2 }
            self.state = .text(quote: byte, isLong: isLong, line: self.line)
        case UInt8(ascii: "#"):
            self.state = .comment
            self.dots = 0
        case UInt8(ascii: "."):
            self.dots += 1
            guard self.dots < Self.maxParts else {
                throw TOMLDocument.ParseError(line: self.line, reason: "a key has more than \(Self.maxParts) parts")
            }
        case UInt8(ascii: "="), UInt8(ascii: ","), UInt8(ascii: "["), UInt8(ascii: "]"), UInt8(ascii: "{"),
            UInt8(ascii: "}"), UInt8(ascii: "\n"):
            self.dots = 0
        case 0x80...:
            throw TOMLDocument.ParseError(
                line: self.line, reason: "non-ASCII letters must be in quotes")
        default: break
        }
    }

    private mutating func text(
        _ byte: UInt8, _ quote: UInt8, _ isLong: Bool, _ line: Int
    ) throws(TOMLDocument.ParseError) {
        if byte == UInt8(ascii: "\\"), quote == UInt8(ascii: "\"") {
            // An escaped character does not end the text. An escaped line feed still counts as a line.
            self.index += 1
            if self.index < self.bytes.count, self.bytes[self.index] == UInt8(ascii: "\n") { self.line += 1 }
        } else if byte == quote, !isLong || self.isTriple(quote) {
            if isLong {
                self.index += 2
                // Up to two more quotes belong to the text (toml.io, 1.0, String).
                var more = 0
                while more < 2, self.index + 1 < self.bytes.count, self.bytes[self.index + 1] == quote {
                    self.index += 1
                    more += 1
                }
            }
            self.state = .plain
        } else if byte == UInt8(ascii: "\n"), !isLong {
            throw Self.unclosed(line)
        }
    }

    private func isTriple(_ quote: UInt8) -> Bool {
        self.index + 2 < self.bytes.count && self.bytes[self.index + 1] == quote && self.bytes[self.index + 2] == quote
    }
}
