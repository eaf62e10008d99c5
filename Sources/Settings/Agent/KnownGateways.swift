/// The keys of gateways that an agent has met, a line each: `HOST:PORT sha256/...`. Empty lines and those that begin
/// with `#` are kept.
///
/// Editors may leave a byte order mark and CRLF. A line that is none of these forms is damaged, by a power cut or a slip
/// of an editor: it says nothing about any key, and the other lines hold.
package struct KnownGateways {
    /// A line that an agent has written.
    package struct Entry: Equatable {
        package let gateway: String
        package let pin: String
        /// From 1.
        package let line: Int
    }

    private static let byteOrderMark: [UInt8] = [0xEF, 0xBB, 0xBF]
    private static let carriageReturn = UInt8(ascii: "\r")

    package let path: String
    /// Without their line feeds; bytes, as a damaged line need not be a text.
    private var lines: [[UInt8]] = []
    private var hasByteOrderMark = false

    /// Reads the file; one that is missing has no lines.
    package init(path: String) throws(SettingsError) {
        self.path = path
        guard FileAccess.exists(path) else { return }
        var bytes = try FileAccess.read(path, atMost: 1 << 20)[...]
        if bytes.starts(with: Self.byteOrderMark) {
            self.hasByteOrderMark = true
            bytes = bytes.dropFirst(Self.byteOrderMark.count)
        }
        self.lines = bytes.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false).map { Array($0) }
        if self.lines.last?.isEmpty ?? false { self.lines.removeLast() }
    }

    private enum Content {
        case nothing
        case entry(gateway: String, pin: String)
        /// - Parameter gateway: the first word, which may be a part of what was there.
        case damaged(gateway: String)
    }

    private static func content(of line: [UInt8]) -> Content {
        let text = line.last == self.carriageReturn ? line.dropLast() : line[...]
        guard let first = text.first, first != UInt8(ascii: "#") else { return .nothing }
        let words = text.split(whereSeparator: { $0 == UInt8(ascii: " ") || $0 == UInt8(ascii: "\t") })
            .map { String(decoding: $0, as: UTF8.self) }
        guard !words.isEmpty else { return .nothing }
        guard words.count == 2, PinText.fault(of: words[1]) == nil else { return .damaged(gateway: words[0]) }
        return .entry(gateway: words[0], pin: words[1])
    }

    /// The pin that was seen at `gateway`; the first line counts.
    package func entry(of gateway: String) -> Entry? {
        for (index, line) in self.lines.enumerated() {
            if case .entry(gateway, let pin) = Self.content(of: line) {
                return Entry(gateway: gateway, pin: pin, line: index + 1)
            }
        }
        return nil
    }

    /// Where a damaged line is, `FILE:LINE`; a line that begins with `gateway` before others.
    package func damage(near gateway: String) -> String? {
        var first: Int?
        for (index, line) in self.lines.enumerated() {
            guard case .damaged(let word) = Self.content(of: line) else { continue }
            if word == gateway { return "\(self.path):\(index + 1)" }
            first = first ?? index
        }
        return first.map { "\(self.path):\($0 + 1)" }
    }

    /// Adds a gateway and saves the file; a damaged line of the same gateway goes. Agents that share the file take turns,
    /// so that each adds to what the others have written.
    ///
    /// - Returns: the gateway's entry, which another agent may have added with another key: the first to come counts.
    package static func remember(
        _ gateway: String, pin: String, path: String
    ) throws(SettingsError) -> Entry {
        let lock = try FileLock(path: "\(path).lock", of: path)
        defer { withExtendedLifetime(lock) {} }
        var known = try KnownGateways(path: path)
        if let entry = known.entry(of: gateway) { return entry }
        known.lines.removeAll { line in
            if case .damaged(gateway) = self.content(of: line) { true } else { false }
        }
        let hasReturns = known.lines.first?.last == self.carriageReturn
        known.lines.append(Array("\(gateway) \(pin)".utf8) + (hasReturns ? [self.carriageReturn] : []))
        let bytes = known.lines.reduce(into: known.hasByteOrderMark ? self.byteOrderMark : []) { bytes, line in
            bytes += line + [UInt8(ascii: "\n")]
        }
        try FileAccess.replace(path, with: bytes, durable: true)
        return Entry(gateway: gateway, pin: pin, line: known.lines.count)
    }
}
