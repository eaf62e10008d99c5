internal import Bytes
internal import Wire

/// The kinds of frames in version 1 (`docs/version-1.md`).
enum FrameKind: UInt8 {
    /// Gateway: accepts the request.
    case ok = 0
    /// Gateway: refuses the request. The payload is the reason, and the connection ends.
    case error = 1
    /// Agent: requests the name in the payload.
    case register = 2
    /// Agent: all names are requested.
    case finishRegister = 3
    /// Both: bytes of a stream. The first bytes open it.
    case payload = 4
    /// Both: ends a stream in both directions.
    case close = 5
    /// Gateway: ends the connection. No gateway is known to send it.
    case terminate = 6
    /// Agent: logs in with the token in the payload.
    case login = 7
}

/// `kind u8 | id u32 | size u16`, big-endian, before each payload.
struct FrameHeader: Equatable {
    static let size = 7
    static let maximumPayload = Int(UInt16.max)
    /// Longest payload of any frame except `payload`.
    static let maximumControl = 4_096

    let kind: UInt8
    let id: UInt32
    let length: Int

    /// Reads the header at `offset`. Returns nil if it is incomplete.
    init?(_ bytes: RawSpan, at offset: Int) {
        guard bytes.byteCount - offset >= Self.size else { return nil }
        var word: UInt64 = 0
        for index in offset..<(offset + Self.size) {
            word = word << 8 | UInt64(unsafe bytes.unsafeLoad(fromByteOffset: index, as: UInt8.self))
        }
        self.kind = UInt8(truncatingIfNeeded: word >> 48)
        self.id = UInt32(truncatingIfNeeded: word >> 16)
        self.length = Int(word & 0xFFFF)
    }
}

/// Appends a frame's header. The caller appends the payload of `length` bytes.
func appendHeader(_ kind: FrameKind, id: UInt32, length: Int, to out: inout ByteQueue) {
    precondition(length >= 0 && length <= FrameHeader.maximumPayload, "no frame is that long")
    out.append(kind.rawValue)
    out.append(id)
    out.append(UInt16(length))
}
