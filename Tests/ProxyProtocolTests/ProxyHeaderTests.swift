import ProxyProtocol
import Testing
import Wire

private func address(_ host: String, _ port: UInt16) -> WireAddress {
    guard let address = WireAddress(host: Array(host.utf8), port: port) else {
        Issue.record("'\(host)' is not an address")
        return .none
    }
    return address
}

private func proxied(_ source: String, _ sourcePort: UInt16, _ destination: String, _ port: UInt16) -> ProxyHeader {
    .proxied(source: address(source, sourcePort), destination: address(destination, port))
}

/// Decodes all bytes at once with a new decoder.
private func decode(_ bytes: [UInt8]) -> ProxyHeaderDecoder.Progress {
    var decoder = ProxyHeaderDecoder()
    return decoder.received(bytes.span.bytes)
}

private func line(_ text: String) -> [UInt8] { Array(text.utf8) }

private let signature: [UInt8] = [0x0D, 0x0A, 0x0D, 0x0A, 0x00, 0x0D, 0x0A, 0x51, 0x55, 0x49, 0x54, 0x0A]

private func binary(_ command: UInt8, _ family: UInt8, _ body: [UInt8], length: Int? = nil) -> [UInt8] {
    let length = length ?? body.count
    return signature + [command, family, UInt8(length >> 8), UInt8(length & 0xFF)] + body
}

private let tcp4Body: [UInt8] = [192, 0, 2, 1, 203, 0, 113, 7, 0xDC, 0x04, 0x01, 0xBB]
private let tcp4 = proxied("192.0.2.1", 56_324, "203.0.113.7", 443)
private let tcp6Body =
    [0x20, 0x01, 0x0D, 0xB8] + [UInt8](repeating: 0, count: 11) + [1] + [UInt8](repeating: 0, count: 15) + [1]
    + [0xDC, 0x04, 0x01, 0xBB]
private let tcp6 = proxied("2001:db8::1", 56_324, "::1", 443)
private let longest =
    "PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n"

@Suite("PROXY headers")
struct ProxyHeaderTests {
    struct Good: Sendable {
        let bytes: [UInt8]
        let header: ProxyHeader
    }

    static let good: [Good] = [
        Good(bytes: line("PROXY TCP4 192.0.2.1 203.0.113.7 56324 443\r\n"), header: tcp4),
        Good(
            bytes: line("PROXY TCP4 255.255.255.255 0.0.0.0 65535 0\r\n"),
            header: proxied("255.255.255.255", 65_535, "0.0.0.0", 0)),
        Good(bytes: line("PROXY TCP6 2001:db8::1 ::1 56324 443\r\n"), header: tcp6),
        Good(bytes: line("PROXY TCP6 2001:0DB8:0:0:0:0:0:1 0:0:0:0:0:0:0:1 56324 443\r\n"), header: tcp6),
        // This is how haproxy writes the address of an IPv4 client at a dual-stack listener.
        Good(
            bytes: line("PROXY TCP6 ::ffff:192.0.2.1 ::ffff:203.0.113.7 1 2\r\n"),
            header: proxied("::ffff:c000:201", 1, "::ffff:cb00:7107", 2)),
        Good(bytes: line("PROXY UNKNOWN\r\n"), header: .local),
        Good(bytes: line("PROXY UNKNOWN what ever it is\r\n"), header: .local),
        Good(bytes: line(longest), header: .local),
        Good(bytes: binary(0x21, 0x11, tcp4Body), header: tcp4),
        Good(bytes: binary(0x21, 0x12, tcp4Body), header: tcp4),
        Good(bytes: binary(0x21, 0x21, tcp6Body), header: tcp6),
        Good(bytes: binary(0x21, 0x22, tcp6Body), header: tcp6),
        // Extensions: a host name and an empty one, one of 300 bytes, and one of the maximum length.
        Good(bytes: binary(0x21, 0x11, tcp4Body + [0x02, 0, 3, 0x61, 0x2E, 0x62, 0x04, 0, 0]), header: tcp4),
        Good(
            bytes: binary(0x21, 0x21, tcp6Body + [0xEE, 1, 44] + [UInt8](repeating: 0xFF, count: 300)), header: tcp6),
        Good(bytes: binary(0x21, 0x11, tcp4Body + [4, 7, 241] + [UInt8](repeating: 0, count: 2_033)), header: tcp4),
        Good(bytes: binary(0x20, 0x00, []), header: .local),
        // LOCAL makes the family and the rest irrelevant.
        Good(bytes: binary(0x20, 0xFF, [1, 2, 3]), header: .local),
        Good(bytes: binary(0x20, 0x11, tcp4Body), header: .local),
        Good(bytes: binary(0x21, 0x00, []), header: .local),
        Good(bytes: binary(0x21, 0x00, [1, 2, 3]), header: .local),
        Good(bytes: binary(0x21, 0x31, [UInt8](repeating: 0x2F, count: 216)), header: .local),
    ]

    @Test("are decoded whole, without the bytes that follow", arguments: good)
    func whole(_ row: Good) {
        #expect(decode(row.bytes) == .header(row.header, byteCount: row.bytes.count))
        #expect(decode(row.bytes + line("GET /")) == .header(row.header, byteCount: row.bytes.count))
    }

    @Test("are decoded in two pieces, at every cut", arguments: good)
    func cut(_ row: Good) {
        for cut in 0..<row.bytes.count {
            var decoder = ProxyHeaderDecoder()
            let (first, second) = (Array(row.bytes[..<cut]), Array(row.bytes[cut...]) + [1, 2, 3])
            #expect(decoder.received(first.span.bytes) == .needMore)
            #expect(decoder.received(second.span.bytes) == .header(row.header, byteCount: row.bytes.count - cut))
        }
    }

    @Test("are decoded byte by byte, without the bytes that follow", arguments: good)
    func byteByByte(_ row: Good) {
        var decoder = ProxyHeaderDecoder()
        for byte in row.bytes.dropLast() { #expect(decoder.received([byte].span.bytes) == .needMore) }
        #expect(decoder.received([row.bytes[row.bytes.count - 1]].span.bytes) == .header(row.header, byteCount: 1))
        #expect(decoder.received([0].span.bytes) == .header(row.header, byteCount: 0))
    }

    struct Bad: Sendable {
        let bytes: [UInt8]
        let fault: ProxyFault
    }

    static let bad: [Bad] =
        [
            ("GET / HTTP/1.1\r\n", ProxyFault.noHeader), ("PROXX", .noHeader), ("PROXYTCP4", .noHeader),
            ("proxy TCP4", .noHeader), ("\0", .noHeader), (" PROXY", .noHeader), ("\r\nPROXY", .noHeader),
            ("PROXY \r\n", .badProtocol), ("PROXY  TCP4 1.2.3.4 1.2.3.4 1 1\r\n", .badProtocol),
            ("PROXY TCP5 1.2.3.4 1.2.3.4 1 1\r\n", .badProtocol), ("PROXY UNKNOWNS\r\n", .badProtocol),
            ("PROXY tcp4 1.2.3.4 1.2.3.4 1 1\r\n", .badProtocol), ("PROXY UDP4 1.2.3.4 1.2.3.4 1 1\r\n", .badProtocol),
            ("PROXY TCP4\r\n", .badFields), ("PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n", .badFields),
            ("PROXY TCP4 1.2.3.4 1.2.3.4 1 1 \r\n", .badFields), ("PROXY TCP4 1.2.3.4 1.2.3.4 1 1 1\r\n", .badFields),
            ("PROXY TCP4 1.2.3.4  1.2.3.4 1 1\r\n", .badFields), ("PROXY TCP4 1.2.3.4 ::1 1 1\r\n", .badAddress),
            ("PROXY TCP6 ::1 1.2.3.4 1 1\r\n", .badAddress), ("PROXY TCP4 1.2.3 1.2.3.4 1 1\r\n", .badAddress),
            ("PROXY TCP4 1.2.3.256 1.2.3.4 1 1\r\n", .badAddress), ("PROXY TCP4 1.2.3.04 1.2.3.4 1 1\r\n", .badAddress),
            ("PROXY TCP4 a.b.c.d 1.2.3.4 1 1\r\n", .badAddress), ("PROXY TCP6 fe80::1%lo ::1 1 1\r\n", .badAddress),
            ("PROXY TCP4 1.2.3.4 1.2.3.4 01 1\r\n", .badPort), ("PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n", .badPort),
            ("PROXY TCP4 1.2.3.4 1.2.3.4 -1 1\r\n", .badPort),
            ("PROXY TCP4 1.2.3.4 1.2.3.4 1 99999999999\r\n", .badPort),
            ("PROXY TCP4 1.2.3.4 1.2.3.4 1 1\n", .badLineEnd), ("PROXY TCP4 1.2.3.4 1.2.3.4 1 1\r\r", .badLineEnd),
            ("PROXY UNKNOWN \n", .badLineEnd), ("PROXY UNKNOWN a\rb", .badLineEnd),
            ("PROXY UNKNOWN " + String(repeating: "a", count: 93), .lineTooLong),
            ("PROXY UNKNOWN " + String(repeating: "a", count: 92) + "\r", .lineTooLong),
            (String(longest.dropLast(2)) + "  \r\n", .lineTooLong),
        ].map { Bad(bytes: line($0.0), fault: $0.1) } + [
            Bad(bytes: Array(signature.dropLast()) + [0x0D], fault: .noHeader),
            Bad(bytes: binary(0x11, 0x11, tcp4Body), fault: .badVersion),
            Bad(bytes: binary(0x31, 0x11, tcp4Body), fault: .badVersion),
            Bad(bytes: binary(0x22, 0x11, tcp4Body), fault: .badCommand),
            Bad(bytes: binary(0x2F, 0x11, tcp4Body), fault: .badCommand),
            Bad(bytes: binary(0x21, 0x10, tcp4Body), fault: .badFamily),
            Bad(bytes: binary(0x21, 0x01, tcp4Body), fault: .badFamily),
            Bad(bytes: binary(0x21, 0x13, tcp4Body), fault: .badFamily),
            Bad(bytes: binary(0x21, 0x41, tcp4Body), fault: .badFamily),
            Bad(bytes: binary(0x21, 0x11, []), fault: .tooShort),
            Bad(bytes: binary(0x21, 0x11, Array(tcp4Body.dropLast())), fault: .tooShort),
            Bad(bytes: binary(0x21, 0x21, Array(tcp6Body.dropLast())), fault: .tooShort),
            Bad(bytes: binary(0x21, 0x31, [UInt8](repeating: 0, count: 215)), fault: .tooShort),
            Bad(bytes: binary(0x21, 0x11, [], length: 2_049), fault: .tooLong),
            Bad(bytes: binary(0x20, 0x00, [], length: 65_535), fault: .tooLong),
            Bad(bytes: binary(0x21, 0x11, tcp4Body + [1]), fault: .badExtension),
            Bad(bytes: binary(0x21, 0x11, tcp4Body + [1, 0]), fault: .badExtension),
            Bad(bytes: binary(0x21, 0x11, tcp4Body + [1, 0, 1]), fault: .badExtension),
            Bad(bytes: binary(0x21, 0x11, tcp4Body + [1, 0xFF, 0xFF, 0]), fault: .badExtension),
        ]

    @Test("are refused if invalid, whole and byte by byte, and stay invalid", arguments: bad)
    func invalid(_ row: Bad) {
        #expect(decode(row.bytes) == .invalid(row.fault))
        var decoder = ProxyHeaderDecoder()
        var progress = ProxyHeaderDecoder.Progress.needMore
        for byte in row.bytes {
            progress = decoder.received([byte].span.bytes)
            if progress != .needMore { break }
        }
        #expect(progress == .invalid(row.fault))
        #expect(decoder.received(line("PROXY UNKNOWN\r\n").span.bytes) == .invalid(row.fault))
    }

    @Test("are distinguished from other protocols by the first byte")
    func firstByte() {
        for byte in UInt8.min...UInt8.max {
            let isFirst = byte == UInt8(ascii: "P") || byte == 0x0D
            #expect(decode([byte]) == (isFirst ? .needMore : .invalid(.noHeader)))
        }
    }

    @Test("are encoded as in the specification")
    func written() {
        #expect(tcp4.encoded(.v1) == line("PROXY TCP4 192.0.2.1 203.0.113.7 56324 443\r\n"))
        #expect(tcp6.encoded(.v1) == line("PROXY TCP6 2001:db8::1 ::1 56324 443\r\n"))
        #expect(ProxyHeader.local.encoded(.v1) == line("PROXY UNKNOWN\r\n"))
        #expect(tcp4.encoded(.v2) == binary(0x21, 0x11, tcp4Body))
        #expect(tcp6.encoded(.v2) == binary(0x21, 0x21, tcp6Body))
        #expect(ProxyHeader.local.encoded(.v2) == binary(0x20, 0x00, []))
    }

    @Test("are LOCAL if an address is unknown, and IPv6 if the families differ")
    func unknown() {
        let (four, six) = (address("192.0.2.1", 1), address("2001:db8::1", 2))
        for (source, destination) in [(.none, four), (six, .none), (.none, .none)] {
            #expect(ProxyHeader(source: source, destination: destination) == .local)
        }
        #expect(
            ProxyHeader(source: four, destination: six).encoded(.v1)
                == line("PROXY TCP6 ::ffff:c000:201 2001:db8::1 1 2\r\n"))
        #expect(
            ProxyHeader(source: six, destination: four).encoded(.v1)
                == line("PROXY TCP6 2001:db8::1 ::ffff:c000:201 2 1\r\n"))
        #expect(ProxyHeader(source: four, destination: four) == .proxied(source: four, destination: four))
        // Bytes after the first four of an IPv4 address are never sent.
        let dirty = WireAddress(family: 4, bytes: (0xC000_0201_FFFF_FFFF, .max), port: 1)
        for version in ProxyVersion.allCases {
            #expect(
                ProxyHeader(source: dirty, destination: four).encoded(version)
                    == ProxyHeader(source: four, destination: four).encoded(version))
        }
    }

    @Test("survive encoding and decoding, and never exceed the length of their version")
    func roundTrip() {
        var random = SystemRandomNumberGenerator()
        for _ in 0..<2_000 {
            func make(_ family: UInt8) -> WireAddress {
                // Long runs of zeros and ones exercise the short forms of the text.
                func word() -> UInt64 {
                    [0, .max, random.next(), random.next() & random.next() & random.next(), 0xFFFF].randomElement() ?? 0
                }
                let port = UInt16.random(in: 0...UInt16.max)
                return family == 4
                    ? WireAddress(family: 4, bytes: (word() & (UInt64.max << 32), 0), port: port)
                    : WireAddress(family: 6, bytes: (word(), word()), port: port)
            }
            let family: UInt8 = Bool.random() ? 4 : 6
            let header = ProxyHeader(source: make(family), destination: make(family))
            for version in ProxyVersion.allCases {
                let bytes = header.encoded(version)
                #expect(decode(bytes) == .header(header, byteCount: bytes.count))
                #expect(bytes.count <= (version == .v1 ? 107 : 52))
            }
        }
    }

    @Test("never trap on garbage, and end within their maximum length")
    func garbage() {
        var random = SystemRandomNumberGenerator()
        for round in 0..<2_000 {
            var bytes = Self.good[round % Self.good.count].bytes
            switch round % 4 {
            case 0: bytes = (0..<Int.random(in: 0...300)).map { _ in UInt8.random(in: 0...255, using: &random) }
            case 1: bytes = signature + (0..<3_000).map { _ in UInt8.random(in: 0...255, using: &random) }
            case 2: for _ in 0..<3 { bytes[Int.random(in: 0..<bytes.count)] ^= UInt8.random(in: 1...255) }
            default: bytes.removeSubrange(Int.random(in: 0..<bytes.count)...)
            }
            var decoder = ProxyHeaderDecoder()
            var rest = bytes[...]
            var progress = ProxyHeaderDecoder.Progress.needMore
            while !rest.isEmpty, progress == .needMore {
                let piece = Array(rest.prefix(Int.random(in: 1...40)))
                rest = rest.dropFirst(piece.count)
                progress = decoder.received(piece.span.bytes)
            }
            if progress == .needMore { #expect(bytes.count < 16 + 2_048) }
            #expect(progress == decode(bytes) || progress != .needMore)
        }
    }
}
