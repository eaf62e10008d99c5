/// Parses the head of a request: the request line and the fields, up to the empty line (RFC 9112, 2.1). Only the
/// request line is evaluated.
///
/// Input may arrive in pieces of any size. At most ``maximum`` bytes plus one piece are buffered.
package struct RequestHead: ~Copyable {
    package enum Progress: Equatable {
        case needMore
        case request(RequestLine)
        /// The first line is not a request line, or the head is longer than ``maximum``.
        case invalid
    }

    /// Maximum size of a head in bytes.
    package static let maximum = 8 * 1024

    private var bytes: [UInt8] = []

    package init() {}

    /// Adds the next piece. Must not be called again after it has returned `request` or `invalid`.
    package mutating func received(_ piece: UnsafeRawBufferPointer) -> Progress {
        // The end of the head may be split between pieces.
        let seen = max(0, self.bytes.count - 3)
        self.bytes += piece
        let isWhole = Self.hasEmptyLine(self.bytes[seen...])
        guard isWhole || self.bytes.count >= Self.maximum else { return .needMore }
        defer { self.bytes = [] }
        guard isWhole, let line = RequestLine(self.bytes) else { return .invalid }
        return .request(line)
    }

    /// Whether the empty line that ends a head is present. Line ends may lack the CR (RFC 9112, 2.2).
    private static func hasEmptyLine(_ bytes: ArraySlice<UInt8>) -> Bool {
        bytes.indices.contains { index in
            bytes[index...].starts(with: [0x0A, 0x0D, 0x0A]) || bytes[index...].starts(with: [0x0A, 0x0A])
        }
    }
}

/// The first line of a request (RFC 9112, 3).
package struct RequestLine: Equatable {
    package let method: String
    /// Without the query.
    package let path: String

    /// Nil if `head` does not start with a request line.
    init?(_ head: [UInt8]) {
        let line = String(decoding: head.prefix { $0 != 0x0D && $0 != 0x0A }, as: UTF8.self)
        let words = line.split(separator: " ", omittingEmptySubsequences: false)
        guard words.count == 3, words[2].hasPrefix("HTTP/1."), !words[0].isEmpty else { return nil }
        self.method = String(words[0])
        var target = words[1]
        // A server must accept the absolute form too (RFC 9112, 3.2.2).
        for scheme in ["http://", "https://"] where target.hasPrefix(scheme) {
            let rest = target.dropFirst(scheme.count)
            target = rest.firstIndex(of: "/").map { rest[$0...] } ?? "/"
        }
        guard target.hasPrefix("/") else { return nil }
        self.path = String(target.prefix { $0 != "?" })
    }
}
