package import Logging

/// A log line as a JSON object (RFC 8259).
///
/// ```
/// {"time":"2026-11-23T09:41:07.310Z","level":"info","message":"...","name":"example","port":33605}
/// ```
/// `time`, `level` and `message` come first, then the fields sorted by name. Numbers and booleans are JSON numbers
/// and booleans; all other values are text. Text that is too long is cut inside its quotes and ends with `…`.
package struct JSONLine {
    /// Most bytes between the quotes of one field. There are few fields, and most are an address or a name.
    private static let maxValue = 384
    /// Bytes of the line that are reserved for the message.
    private static let minMessage = 512
    private static let quote = UInt8(ascii: "\"")

    private var bytes: [UInt8] = []

    private init() {}

    /// - Parameters:
    ///   - time: in the form of RFC 3339.
    ///   - lost: lines before this one that could not be written.
    ///   - atMost: bytes that the line may have without its line end; at least 1,024.
    package static func text(
        time: String, level: Logger.Level, message: String, metadata: Logger.Metadata, lost: Int = 0, atMost: Int
    ) -> String {
        precondition(atMost >= 1_024, "a line of JSON needs room for its fields and some of its message")
        var line = JSONLine()
        line.bytes.reserveCapacity(256)
        line.bytes += #"{"time":""#.utf8
        line.append(time, atMost: 64)
        line.bytes += #"","level":""#.utf8
        line.bytes += Self.name(of: level).utf8
        line.bytes += #"","message":""#.utf8
        let fields = Self.fields(metadata, lost: lost, atMost: atMost - line.bytes.count - Self.minMessage)
        // The message's closing quote and the brace.
        line.append(message, atMost: atMost - line.bytes.count - fields.count - 2)
        line.bytes.append(Self.quote)
        line.bytes += fields
        line.bytes.append(UInt8(ascii: "}"))
        return String(decoding: line.bytes, as: UTF8.self)
    }

    private static func name(of level: Logger.Level) -> String {
        switch level {
        case .trace: "trace"
        case .debug: "debug"
        case .info, .notice: "info"
        case .warning: "warning"
        case .error, .critical: "error"
        }
    }

    /// `,"name":value` for each field. Fields that do not fit are left out.
    private static func fields(_ metadata: Logger.Metadata, lost: Int, atMost: Int) -> [UInt8] {
        var fields = JSONLine()
        if lost > 0 { fields.bytes += #","lost":\#(lost)"#.utf8 }
        for (key, value) in metadata.sorted(by: { $0.key < $1.key }) where !self.isReserved(key) {
            var field = JSONLine()
            field.bytes += #",""#.utf8
            field.append(key, atMost: 64)
            field.bytes += #"":"#.utf8
            field.append(value)
            if fields.bytes.count + field.bytes.count <= atMost { fields.bytes += field.bytes }
        }
        return fields.bytes
    }

    /// Names in an object should be unique (RFC 8259, 4).
    private static func isReserved(_ key: String) -> Bool { ["time", "level", "message", "lost"].contains(key) }

    private mutating func append(_ value: Logger.MetadataValue) {
        if case .stringConvertible(let value) = value {
            if let number = value as? any BinaryInteger { return self.bytes += "\(number)".utf8 }
            if let number = value as? Double, number.isFinite { return self.bytes += "\(number)".utf8 }
            if let truth = value as? Bool { return self.bytes += "\(truth)".utf8 }
        }
        self.bytes.append(Self.quote)
        self.append("\(value)", atMost: Self.maxValue)
        self.bytes.append(Self.quote)
    }

    /// Appends the inside of a string. Escapes quotes, backslashes and control characters (RFC 8259, 7), and also
    /// characters that some readers take for a line end or drop (U+FEFF).
    private mutating func append(_ text: String, atMost: Int) {
        let mark = Array("…".utf8)
        guard atMost >= mark.count else { return }
        let start = self.bytes.count
        /// The end of the text that can stay if the mark follows.
        var cut = start
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": self.bytes += #"\""#.utf8
            case "\\": self.bytes += #"\\"#.utf8
            case "\n": self.bytes += #"\n"#.utf8
            case "\r": self.bytes += #"\r"#.utf8
            case "\t": self.bytes += #"\t"#.utf8
            case "\0"..<" ", "\u{7F}"..."\u{9F}", "\u{2028}", "\u{2029}", "\u{FEFF}": self.appendEscape(scalar.value)
            default: if let code = UTF8.encode(scalar) { self.bytes += code }
            }
            if self.bytes.count - start > atMost {
                self.bytes.removeSubrange(cut...)
                self.bytes += mark
                return
            }
            if self.bytes.count - start <= atMost - mark.count { cut = self.bytes.count }
        }
    }

    /// `\u` and four digits.
    private mutating func appendEscape(_ value: UInt32) {
        let digits = String(value, radix: 16)
        self.bytes += (#"\u"# + String(repeating: "0", count: 4 - digits.count) + digits).utf8
    }
}
