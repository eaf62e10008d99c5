internal import Wire

/// Why bytes are not a valid PROXY header. The sender is at fault. The texts are for logs.
package enum ProxyFault: String, Error, Equatable, Sendable, CustomStringConvertible {
    case noHeader = "no PROXY header at the beginning"
    case lineTooLong = "the PROXY line is longer than 107 bytes"
    case badLineEnd = "the PROXY line does not end in CR LF"
    case badProtocol = "the PROXY line has a protocol other than TCP4, TCP6 and UNKNOWN"
    case badFields = "the PROXY line does not have two addresses and two ports"
    case badAddress = "an address of the PROXY line does not match its family"
    case badPort = "a port of the PROXY line is not valid"
    case badVersion = "the PROXY header has an unknown version"
    case badCommand = "the PROXY header has an unknown command"
    case badFamily = "the PROXY header has an unknown family or transport"
    case tooLong = "the PROXY header is longer than 2064 bytes"
    case tooShort = "the PROXY header is too short for its addresses"
    case badExtension = "an extension exceeds the PROXY header"

    package var description: String { self.rawValue }
}

/// Reads one PROXY header of either version, in pieces as they arrive.
///
/// ```
///            'P'                  "PROXY "              CR LF
///   start ─────────► signature ────────────────► line ─────────► header
///     │     0x0D          │    12 bytes                16 bytes         its length
///     └──────────────► signature ─────────► fixed part ─────────► body ───────────► header
///   any ── a byte that is not allowed there ──► invalid
/// ```
///
/// Each byte is checked as it arrives, so another protocol is detected at the first byte that differs. At most 2,064
/// bytes are held.
package struct ProxyHeaderDecoder: Sendable {
    package enum Progress: Equatable, Sendable {
        /// The header is incomplete. All bytes were used.
        case needMore
        /// The complete header, and how many bytes of the last piece belong to it. The following bytes are the
        /// visitor's.
        case header(ProxyHeader, byteCount: Int)
        case invalid(ProxyFault)
    }

    private enum State {
        /// Reading `PROXY ` or the signature.
        case start
        case line
        case fixed
        /// Until `end` bytes have arrived.
        case body(ProxyCommand, UInt8, end: Int)
    }

    private var state = State.start
    private var bytes: [UInt8] = []
    /// The final result, once known.
    private var outcome: Progress?

    package init() {}

    /// Reads a piece. After a header or a fault it reads nothing and returns the same result, a header with `byteCount`
    /// 0.
    package mutating func received(_ piece: RawSpan) -> Progress {
        switch self.outcome {
        case .header(let header, _): return .header(header, byteCount: 0)
        case .invalid(let fault): return .invalid(fault)
        case .needMore, nil: break
        }
        for index in 0..<piece.byteCount {
            do throws(ProxyFault) {
                self.bytes.append(unsafe piece.unsafeLoad(fromByteOffset: index, as: UInt8.self))
                guard let header = try self.judgeLast() else { continue }
                let progress = Progress.header(header, byteCount: index + 1)
                self.outcome = progress
                self.bytes = []
                return progress
            } catch {
                self.outcome = .invalid(error)
                self.bytes = []
                return .invalid(error)
            }
        }
        return .needMore
    }

    /// Checks the last byte. Returns the header when it is complete.
    private mutating func judgeLast() throws(ProxyFault) -> ProxyHeader? {
        let count = self.bytes.count
        switch self.state {
        case .start:
            let expected = self.bytes[0] == ProxyHeader.word[0] ? ProxyHeader.word : ProxyHeader.signature
            guard self.bytes[count - 1] == expected[count - 1] else { throw .noHeader }
            if count == expected.count { self.state = expected == ProxyHeader.word ? .line : .fixed }
            return nil
        case .line:
            // The rest of an UNKNOWN line is skipped, but it must end with one CR LF.
            if self.bytes[count - 2] == UInt8(ascii: "\r") {
                guard self.bytes[count - 1] == UInt8(ascii: "\n") else { throw .badLineEnd }
                return try Self.line(self.bytes[ProxyHeader.word.count..<(count - 2)])
            }
            guard self.bytes[count - 1] != UInt8(ascii: "\n") else { throw .badLineEnd }
            guard count < ProxyHeader.maximumLine else { throw .lineTooLong }
            return nil
        case .fixed:
            return try self.judgeFixed()
        case .body(let command, let family, let end):
            guard count == end else { return nil }
            return try Self.body(command, family, self.bytes[ProxyHeader.fixedSize...])
        }
    }

    private mutating func judgeFixed() throws(ProxyFault) -> ProxyHeader? {
        let command = self.bytes[12]
        guard command >> 4 == 2 else { throw .badVersion }
        guard let command = ProxyCommand(rawValue: command) else { throw .badCommand }
        guard self.bytes.count == ProxyHeader.fixedSize else { return nil }
        let length = Int(self.bytes[14]) << 8 | Int(self.bytes[15])
        guard length <= ProxyHeader.maximumBody else { throw .tooLong }
        guard length > 0 else { return try Self.body(command, self.bytes[13], []) }
        self.state = .body(command, self.bytes[13], end: ProxyHeader.fixedSize + length)
        return nil
    }

    // MARK: - Version 1

    /// Parses the text between `PROXY ` and the line end.
    private static func line(_ text: ArraySlice<UInt8>) throws(ProxyFault) -> ProxyHeader {
        let fields = text.split(separator: UInt8(ascii: " "), omittingEmptySubsequences: false)
        let family: UInt8
        switch fields.first.map({ String(decoding: $0, as: UTF8.self) }) {
        case "UNKNOWN": return .local
        case "TCP4": family = 4
        case "TCP6": family = 6
        default: throw .badProtocol
        }
        guard fields.count == 5 else { throw .badFields }
        guard let sourcePort = DecimalText.value(fields[3], atMost: 65_535),
            let destinationPort = DecimalText.value(fields[4], atMost: 65_535)
        else { throw .badPort }
        guard let source = WireAddress(host: fields[1], port: UInt16(sourcePort)), source.family == family,
            let destination = WireAddress(host: fields[2], port: UInt16(destinationPort)), destination.family == family
        else { throw .badAddress }
        return .proxied(source: source, destination: destination)
    }

    // MARK: - Version 2

    /// Parses addresses and extensions.
    private static func body(
        _ command: ProxyCommand, _ family: UInt8, _ body: ArraySlice<UInt8>
    ) throws(ProxyFault) -> ProxyHeader {
        // "The receiver must ... discard the protocol block including the family" (2.2).
        if command == .local { return .local }
        guard let family = ProxyFamily(rawValue: family) else { throw .badFamily }
        guard family != .unspecified else { return .local }
        guard body.count >= family.size else { throw .tooShort }
        try Self.skipExtensions(body.dropFirst(family.size))
        switch family {
        case .unspecified, .unixStream, .unixDatagram:
            // Socket paths on the proxy's machine do not identify the client.
            return .local
        case .tcp4, .udp4: return Self.addresses(Array(body.prefix(family.size)), family: 4, size: 4)
        case .tcp6, .udp6: return Self.addresses(Array(body.prefix(family.size)), family: 6, size: 16)
        }
    }

    /// `source | destination | source port u16 | destination port u16`
    private static func addresses(_ bytes: [UInt8], family: UInt8, size: Int) -> ProxyHeader {
        func number(_ range: Range<Int>) -> UInt64 { bytes[range].reduce(0) { $0 << 8 | UInt64($1) } }
        func address(_ index: Int) -> WireAddress {
            let start = index * size
            let port = 2 * size + 2 * index
            return WireAddress(
                family: family,
                bytes: size == 4
                    ? (number(start..<(start + 4)) << 32, 0)
                    : (number(start..<(start + 8)), number((start + 8)..<(start + 16))),
                port: UInt16(truncatingIfNeeded: number(port..<(port + 2))))
        }
        return .proxied(source: address(0), destination: address(1))
    }

    /// Checks `type u8 | length u16 | value` up to the end (2.2.1 to 2.2.8). No extension changes the addresses.
    private static func skipExtensions(_ bytes: ArraySlice<UInt8>) throws(ProxyFault) {
        var rest = bytes
        while !rest.isEmpty {
            let header = Array(rest.prefix(3))
            guard header.count == 3 else { throw .badExtension }
            let size = 3 + (Int(header[1]) << 8 | Int(header[2]))
            guard rest.count >= size else { throw .badExtension }
            rest = rest.dropFirst(size)
        }
    }
}
