/// Sizes and constants of the link protocol, version 2 (`docs/protocol.md`).
package enum WireConstant {
    /// Bytes before each payload.
    package static let headerSize = 8
    /// Longest payload: header and payload fill one TLS record of 16,384 bytes (RFC 8446, 5.1).
    package static let maximumPayload = 16_376
    /// Longest payload until the login is accepted.
    package static let maximumPayloadBeforeLogin = 4_096
    /// The version that this program speaks.
    package static let version: UInt8 = 2
    /// First bytes of every HELLO.
    package static let magic: [UInt8] = [0x44, 0x47, 0x4C, 0x32]  // "DGL2"
    /// ALPN protocol name (RFC 7301), required on both sides.
    package static let applicationProtocol = "diglett/2"
    /// The port on which gateways listen by default.
    package static let defaultPort: UInt16 = 20_000
}

/// The type of a frame.
package enum FrameType: UInt8, CaseIterable, Sendable {
    case hello = 1
    case login = 2
    case welcome = 3
    case register = 4
    case registered = 5
    case unregister = 6
    case open = 7
    case accept = 8
    case data = 9
    case window = 10
    case reset = 11
    case ping = 12
    case pong = 13
    case goAway = 14
    case resume = 15
    case resumed = 16
    case ack = 17

    /// The flags that are defined for this type.
    package var knownFlags: UInt8 { self == .data ? FrameFlag.fin : 0 }

    /// Whether the frame belongs to the link itself (id 0) rather than to a stream.
    package var isLinkFrame: Bool {
        switch self {
        case .hello, .login, .welcome, .register, .registered, .unregister, .ping, .pong, .goAway, .resume, .resumed,
            .ack:
            true
        case .open, .accept, .data, .window, .reset: false
        }
    }

    /// The only valid payload length for this type, or nil if the length varies.
    package var fixedLength: Int? {
        switch self {
        case .unregister, .reset: 2
        case .open: Open.size
        case .accept, .window, .ping, .pong, .ack: 8
        case .hello, .login, .welcome, .register, .registered, .data, .goAway, .resume, .resumed: nil
        }
    }

    /// Whether the frame belongs to the session: it counts in ACK, and is sent again on the next carrier if the peer
    /// has not handled it. Frames of unknown types count too.
    package var isCounted: Bool {
        switch self {
        case .register, .registered, .unregister, .open, .accept, .data, .window, .reset: true
        // Only GOAWAY(drain) counts. Any other one ends the session, and with it the count.
        case .goAway: true
        case .hello, .login, .welcome, .ping, .pong, .resume, .resumed, .ack: false
        }
    }
}

/// Bits of the header's flags byte.
package enum FrameFlag {
    /// On DATA: the sender's direction of the stream ends after this frame.
    package static let fin: UInt8 = 0x01
    /// On a type that the receiver does not know: skip the frame instead of ending the link.
    package static let ignorable: UInt8 = 0x80
}

/// The eight bytes before every payload.
///
/// ```
///  0        4       5        6          8
///  | id u32 | type  | flags  | length u16 | payload
/// ```
package struct FrameHeader: Equatable, Sendable {
    package var id: UInt32
    /// The type byte as received. It may be unknown to this program.
    package var typeByte: UInt8
    package var flags: UInt8
    package var length: Int

    package init(id: UInt32, type: FrameType, flags: UInt8 = 0, length: Int) {
        self.id = id
        self.typeByte = type.rawValue
        self.flags = flags
        self.length = length
    }

    /// Reads the header at `offset`. Returns nil if fewer than eight bytes are there.
    package init?(_ bytes: RawSpan, at offset: Int) {
        guard offset >= 0, bytes.byteCount - offset >= WireConstant.headerSize else { return nil }
        self.id = UInt32(bigEndian: unsafe bytes.unsafeLoadUnaligned(fromByteOffset: offset, as: UInt32.self))
        self.typeByte = unsafe bytes.unsafeLoadUnaligned(fromByteOffset: offset + 4, as: UInt8.self)
        self.flags = unsafe bytes.unsafeLoadUnaligned(fromByteOffset: offset + 5, as: UInt8.self)
        self.length = Int(
            UInt16(bigEndian: unsafe bytes.unsafeLoadUnaligned(fromByteOffset: offset + 6, as: UInt16.self)))
    }

    /// The eight bytes as one number, whose most significant byte is sent first.
    package var word: UInt64 {
        UInt64(self.id) << 32 | UInt64(self.typeByte) << 24 | UInt64(self.flags) << 16
            | UInt64(UInt16(truncatingIfNeeded: self.length))
    }
}
