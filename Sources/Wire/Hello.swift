package import Bytes

/// Extension fields (type u16, length u16, value) that this version knows. Others are skipped.
package enum ExtensionType {
    /// In HELLO: name and version of the program, UTF-8, at most 64 bytes.
    package static let software: UInt16 = 1
    /// In HELLO: the sender can resume sessions, and keeps at least this many unacknowledged bytes, u32.
    package static let keeps: UInt16 = 2
    /// In the gateway's HELLO: the kinds of REGISTER that it knows, one byte each.
    package static let kinds: UInt16 = 3
    /// In HELLO: how long the sender keeps a session without a carrier, in seconds, u32.
    package static let resumeWindow: UInt16 = 4
    /// In WELCOME: the session's id, 16 bytes, and its secret, 32 bytes.
    package static let session: UInt16 = 1
    /// In LOGIN, empty: the agent accepts a note after the address in REGISTERED.
    package static let notes: UInt16 = 1
}

/// HELLO, the first frame of both sides.
///
/// `magic 4 | lowest u8 | highest u8 | reserved u16 | stream window u32 | streams u32 | extensions`
package struct Hello: Equatable, Sendable {
    package var lowest: UInt8
    package var highest: UInt8
    /// Bytes that the peer may send on a new stream before it receives a limit.
    package var streamWindow: UInt32
    /// Streams that may be open at once.
    package var maximumStreams: UInt32
    package var software: String
    /// The kinds that the sender lists, or nil without the extension.
    package var listedKinds: [Register.Kind]?
    /// The sender can resume sessions, and keeps at least this many bytes that the peer has not acknowledged.
    package var keeps: UInt32?
    /// How long the sender keeps a session without a carrier, in seconds; nil if it does not say.
    package var resumeWindow: UInt32?

    /// The smallest legal value of `keeps`.
    package static let minKeeps: UInt32 = 65_536

    package init(
        lowest: UInt8 = WireConstant.version, highest: UInt8 = WireConstant.version, streamWindow: UInt32,
        maximumStreams: UInt32, software: String, listedKinds: [Register.Kind]? = nil, keeps: UInt32? = nil,
        resumeWindow: UInt32? = nil
    ) {
        self.lowest = lowest
        self.highest = highest
        self.streamWindow = streamWindow
        self.maximumStreams = maximumStreams
        self.software = software
        self.listedKinds = listedKinds
        self.keeps = keeps
        self.resumeWindow = resumeWindow
    }

    /// The kinds that an agent may request from the gateway that sent this HELLO.
    package var kinds: [Register.Kind] { self.listedKinds ?? Register.Kind.assumed }

    package init(payload: RawSpan) throws(WireError) {
        var reader = ByteReader(payload)
        guard try reader.array(4, .magic) == WireConstant.magic else { throw .badMagic }
        self.lowest = try reader.integer(.versions)
        self.highest = try reader.integer(.versions)
        let _: UInt16 = try reader.integer(.versions)
        self.streamWindow = try reader.integer(.window)
        self.maximumStreams = try reader.integer(.streams)
        guard self.lowest <= self.highest else { throw .badValue(.versions) }
        var software = ""
        var kinds: [Register.Kind]?
        var keeps: UInt32?
        var window: UInt32?
        try reader.extensions { (type, value) throws(WireError) in
            switch type {
            case ExtensionType.software:
                guard value.count <= 64, let text = String(validating: value, as: UTF8.self) else {
                    throw .badText(.extensionField)
                }
                software = text
            case ExtensionType.kinds: kinds = value.map { Register.Kind(rawValue: $0) }
            case ExtensionType.keeps:
                let number: UInt32 = try Self.number(value)
                guard number >= Self.minKeeps else { throw .badValue(.extensionField) }
                keeps = number
            case ExtensionType.resumeWindow: window = try Self.number(value)
            default: return
            }
        }
        self.software = software
        self.listedKinds = kinds
        self.keeps = keeps
        self.resumeWindow = window
    }

    private static func number(_ value: [UInt8]) throws(WireError) -> UInt32 {
        var reader = ByteReader(value.span.bytes)
        let number: UInt32 = try reader.integer(.extensionField)
        try reader.end()
        return number
    }

    package func encode(into out: inout ByteQueue) {
        encodeFrame(.hello, into: &out) { out in
            out.append(WireConstant.magic)
            out.append(self.lowest)
            out.append(self.highest)
            out.append(UInt16(0))
            out.append(self.streamWindow)
            out.append(self.maximumStreams)
            let software = Array(self.software.utf8.prefix(64))
            if !software.isEmpty {
                out.append(ExtensionType.software)
                out.append(UInt16(software.count))
                out.append(software)
            }
            if let kinds = self.listedKinds {
                out.append(ExtensionType.kinds)
                out.append(UInt16(kinds.count))
                out.append(kinds.map(\.rawValue))
            }
            for (type, value) in [(ExtensionType.keeps, self.keeps), (ExtensionType.resumeWindow, self.resumeWindow)] {
                guard let value else { continue }
                out.append(type)
                out.append(UInt16(4))
                out.append(value)
            }
        }
    }
}
