/// The keys of gateways that an agent has connected to, one line each: `HOST:PORT sha256/...`. Empty lines, and
/// comments that begin with `#`, are preserved.
///
/// Editors may add a byte order mark and CRLF. A line of any other form is damaged, by a power failure or an editing
/// mistake. It is ignored, and the other lines stay valid.
package struct KnownGateways {
    /// A valid line with a gateway's key.
    package struct Entry: Equatable {
        package let gateway: String
        package let pin: String
        /// Counted from 1.
        package let line: Int
    }

    private static let byteOrderMark: [UInt8] = [0xEF, 0xBB, 0xBF]
    private static let carriageReturn = UInt8(ascii: "\r")

    package let path: String
    /// Without line feeds. Bytes, because a damaged line may not be valid UTF-8.
    private var lines: [[UInt8]] = []
    private var hasByteOrderMark = false

    /// Reads the file. A missing file has no lines.
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
        /// - Parameter gateway: the first word, which may be truncated.
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

    /// The entry of `gateway`, the first if there are several; nil without one.
    package func entry(of gateway: String) -> Entry? {
        for (index, line) in self.lines.enumerated() {
            if case .entry(gateway, let pin) = Self.content(of: line) {
                return Entry(gateway: gateway, pin: pin, line: index + 1)
            }
        }
        return nil
    }

    /// The place of a damaged line, `FILE:LINE`, preferably of one that begins with `gateway`; nil without one.
    package func damage(near gateway: String) -> String? {
        var first: Int?
        for (index, line) in self.lines.enumerated() {
            guard case .damaged(let word) = Self.content(of: line) else { continue }
            if word == gateway { return "\(self.path):\(index + 1)" }
            first = first ?? index
        }
        return first.map { "\(self.path):\($0 + 1)" }
    }

    /// Adds a gateway and saves the file, without damaged lines of the same gateway. A lock serializes agents that
    /// share the file, so no entry is lost.
    ///
    /// - Returns: the gateway's entry. If another agent has already added the gateway, that entry counts, even with
    ///   another key.
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
