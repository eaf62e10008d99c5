package import Wire

/// Which of its two forms a header has (HAProxy's proxy-protocol.txt).
package enum ProxyVersion: String, Sendable, CaseIterable {
    /// A line of text (2.1).
    case v1
    /// Binary (2.2).
    case v2
}

/// What a PROXY header says about the connection at whose beginning it stands.
package enum ProxyHeader: Equatable, Sendable {
    /// Nothing: the proxy speaks for itself, as in a health check, or does not know. The addresses of the connection
    /// itself count.
    case local
    /// The addresses of the connection that the proxy carries: whose it is, and where that one connected to.
    case proxied(source: WireAddress, destination: WireAddress)

    /// Longest line of version 1 with its end (2.1).
    static let maximumLine = 107
    /// Version 2 before its addresses: the signature, version and command, family, length.
    static let fixedSize = 16
    /// What may follow them: addresses and extensions. A proxy's certificate names and identifiers fit many times.
    static let maximumBody = 2_048
    /// With which version 2 begins. No text begins so, and no other protocol that is in use (2.2).
    static let signature: [UInt8] = [0x0D, 0x0A, 0x0D, 0x0A, 0x00, 0x0D, 0x0A, 0x51, 0x55, 0x49, 0x54, 0x0A]
    /// With which version 1 begins.
    static let word: [UInt8] = Array("PROXY ".utf8)

    /// Whether a connection that begins with this byte may begin with a header.
    package static func canBegin(with byte: UInt8) -> Bool { byte == Self.signature[0] || byte == Self.word[0] }

    /// The header of a stream; one without addresses if one is not known. A header has room for one family, so of two
    /// families both are written as IPv6 addresses.
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

    /// The bytes to send before all others.
    package func encoded(_ version: ProxyVersion) -> [UInt8] {
        switch version {
        case .v1: self.line
        case .v2: self.binary
        }
    }

    /// `PROXY TCP4 192.0.2.1 203.0.113.7 56324 443` and a line's end.
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

/// The byte of version and command (2.2). All others are invalid.
enum ProxyCommand: UInt8 {
    /// The proxy speaks for itself: what follows is to be skipped.
    case local = 0x20
    case proxy = 0x21
}

/// The byte of family and transport (2.2): of the connection that is carried. All others are invalid.
enum ProxyFamily: UInt8 {
    case unspecified = 0x00
    case tcp4 = 0x11
    case udp4 = 0x12
    case tcp6 = 0x21
    case udp6 = 0x22
    case unixStream = 0x31
    case unixDatagram = 0x32

    /// How many bytes its addresses and ports take.
    var size: Int {
        switch self {
        case .unspecified: 0
        case .tcp4, .udp4: 2 * 4 + 2 * 2
        case .tcp6, .udp6: 2 * 16 + 2 * 2
        case .unixStream, .unixDatagram: 2 * 108
        }
    }
}
