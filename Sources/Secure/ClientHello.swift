/// Detects, without decoding it, whether a complete ClientHello has arrived.
///
/// A TLS session takes 45 to 70 KiB of memory. It is created only when the peer's first message is complete, so an
/// unauthenticated connection that stops half-way costs no more than the bytes it has sent.
package enum ClientHello {
    package enum State: Equatable, Sendable {
        case needMore
        case whole
        /// Not the beginning of a TLS handshake.
        case invalid
        /// More bytes or records than a legitimate ClientHello needs.
        case tooLarge
    }

    /// A typical ClientHello has 250 to 500 bytes, or 2 KiB with hybrid key shares.
    package static let maxBytes = 16 * 1024
    /// Maximum number of records that a ClientHello may be split into.
    private static let maxRecords = 64
    private static let recordHeader = 5
    /// In bytes (RFC 8446, 5.1).
    private static let largestRecord = 1 << 14

    /// Parses the record and message headers (RFC 8446, 5.1 and 4).
    ///
    /// - Parameter bytes: all bytes received so far.
    package static func state(of bytes: RawSpan) -> State {
        var offset = 0
        var message = 0
        var wanted: Int?
        var header: [UInt8] = []
        for _ in 0..<self.maxRecords {
            guard bytes.byteCount - offset >= self.recordHeader else {
                return self.isPlausible(bytes, offset) ? .needMore : .invalid
            }
            guard self.isPlausible(bytes, offset) else { return .invalid }
            let length = Int(self.byte(bytes, offset + 3)) << 8 | Int(self.byte(bytes, offset + 4))
            guard length > 0, length <= self.largestRecord else { return .invalid }
            offset += self.recordHeader
            let present = min(length, bytes.byteCount - offset)
            // The header of the handshake message: type 1 and a three-byte length. It may be split across records.
            var index = 0
            while header.count < 4, index < present {
                header.append(self.byte(bytes, offset + index))
                index += 1
            }
            if header.count == 4, wanted == nil {
                guard header[0] == 1 else { return .invalid }
                let size = 4 + (Int(header[1]) << 16 | Int(header[2]) << 8 | Int(header[3]))
                guard size <= self.maxBytes else { return .tooLarge }
                wanted = size
            }
            message += present
            if let wanted, message >= wanted { return .whole }
            guard present == length else { return .needMore }
            offset += length
        }
        return .tooLarge
    }

    /// Whether the record at `offset` has type 22 and version 3.x, as far as its header has arrived.
    private static func isPlausible(_ bytes: RawSpan, _ offset: Int) -> Bool {
        if bytes.byteCount > offset, self.byte(bytes, offset) != 22 { return false }
        return bytes.byteCount <= offset + 1 || self.byte(bytes, offset + 1) == 3
    }

    private static func byte(_ bytes: RawSpan, _ offset: Int) -> UInt8 {
        bytes.unsafeLoad(fromByteOffset: offset, as: UInt8.self)
    }
}
