package import Wire

/// The two forms of a PROXY header (HAProxy's proxy-protocol.txt).
package enum ProxyVersion: String, Sendable, CaseIterable {
    /// A line of text (2.1).
    case v1
    /// Binary (2.2).
    case v2
}

/// What a PROXY header says about the connection that begins with it.
package enum ProxyHeader: Equatable, Sendable {
    /// No addresses: the proxy opened the connection for itself, as in a health check, or does not know the client. Use
    /// the addresses of the connection itself.
    case local
    /// The addresses of the proxied connection: the client's, and the one to which the client connected.
    case proxied(source: WireAddress, destination: WireAddress)

    /// Longest line of version 1 in bytes, including the line end (2.1).
    static let maximumLine = 107
    /// Bytes of version 2 before its addresses: signature, version and command, family, length.
    static let fixedSize = 16
    /// Most bytes after these: addresses and extensions. Certificate names and identifiers of a proxy need far less.
    static let maximumBody = 2_048
    /// The first bytes of version 2. No text and no other protocol in use begins with them (2.2).
    static let signature: [UInt8] = [0x0D, 0x0A, 0x0D, 0x0A, 0x00, 0x0D, 0x0A, 0x51, 0x55, 0x49, 0x54, 0x0A]
    /// The first bytes of version 1.
    static let word: [UInt8] = Array("PROXY ".utf8)

    /// Whether this byte can be the first of a header.
    package static func canBegin(with byte: UInt8) -> Bool { byte == Self.signature[0] || byte == Self.word[0] }

    /// The header for a stream. It has no addresses if either address is unknown. A header has one family, so addresses
    /// of different families are both written as IPv6.
    package init(source: WireAddress, destination: WireAddress) {
        guard source.isKnown, destination.isKnown else {
            self = .local
            return
        }
        self =
            source.family == destination.family
            ? .proxied(source: source, destination: destination)
            : .proxied(source: source.mapped, destination: destination.mapped)
    }

    /// The bytes to send first on the connection.
    package func encoded(_ version: ProxyVersion) -> [UInt8] {
        switch version {
        case .v1: self.line
        case .v2: self.binary
        }
    }

    /// `PROXY TCP4 192.0.2.1 203.0.113.7 56324 443` and CR LF.
    private var line: [UInt8] {
        guard case .proxied(let source, let destination) = self else { return Array("PROXY UNKNOWN\r\n".utf8) }
        let family = source.family == 4 ? "TCP4" : "TCP6"
        return Array(
            "PROXY \(family) \(source.host) \(destination.host) \(source.port) \(destination.port)\r\n".utf8)
    }

    /// `signature 12 | version and command u8 | family and transport u8 | length u16 | addresses | ports`
    private var binary: [UInt8] {
        guard case .proxied(let source, let destination) = self else {
            return Self.signature + [ProxyCommand.local.rawValue, ProxyFamily.unspecified.rawValue, 0, 0]
        }
        let family = source.family == 4 ? ProxyFamily.tcp4 : .tcp6
        let addresses = Self.octets(source) + Self.octets(destination)
        let ports = [source.port, destination.port].flatMap { [UInt8($0 >> 8), UInt8(truncatingIfNeeded: $0)] }
        let length = UInt8(addresses.count + ports.count)
        return Self.signature + [ProxyCommand.proxy.rawValue, family.rawValue, 0, length] + addresses + ports
    }

    /// 4 or 16 bytes, most significant first.
    private static func octets(_ address: WireAddress) -> [UInt8] {
        let bytes = [address.high, address.low].flatMap { word in
            (0..<8).map { UInt8(truncatingIfNeeded: word >> (56 - 8 * UInt64($0))) }
        }
        return Array(bytes.prefix(address.family == 4 ? 4 : 16))
    }
}

/// The byte of version and command (2.2). Other values are invalid.
enum ProxyCommand: UInt8 {
    /// The proxy opened the connection for itself: the rest of the header is skipped.
    case local = 0x20
    case proxy = 0x21
}

/// The byte of family and transport of the proxied connection (2.2). Other values are invalid.
enum ProxyFamily: UInt8 {
    case unspecified = 0x00
    case tcp4 = 0x11
    case udp4 = 0x12
    case tcp6 = 0x21
    case udp6 = 0x22
    case unixStream = 0x31
    case unixDatagram = 0x32

    /// Bytes that the addresses and ports take.
    var size: Int {
        switch self {
        case .unspecified: 0
        case .tcp4, .udp4: 2 * 4 + 2 * 2
        case .tcp6, .udp6: 2 * 16 + 2 * 2
        case .unixStream, .unixDatagram: 2 * 108
        }
    }
}
