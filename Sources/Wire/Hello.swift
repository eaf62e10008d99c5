package import Bytes

/// Extension fields (type u16, length u16, value) that this version knows. Others are skipped.
package enum ExtensionType {
    /// In HELLO: name and version of the program, UTF-8, at most 64 bytes.
    package static let software: UInt16 = 1
    /// In HELLO: reserved for resuming the streams of a broken link.
    package static let resume: UInt16 = 2
    /// In the gateway's HELLO: the kinds of REGISTER that it knows, one byte each.
    package static let kinds: UInt16 = 3
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

    package init(
        lowest: UInt8 = WireConstant.version, highest: UInt8 = WireConstant.version, streamWindow: UInt32,
        maximumStreams: UInt32, software: String, listedKinds: [Register.Kind]? = nil
    ) {
        self.lowest = lowest
        self.highest = highest
        self.streamWindow = streamWindow
        self.maximumStreams = maximumStreams
        self.software = software
        self.listedKinds = listedKinds
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
        try reader.extensions { (type, value) throws(WireError) in
            switch type {
            case ExtensionType.software:
                guard value.count <= 64, let text = String(validating: value, as: UTF8.self) else {
                    throw .badText(.extensionField)
                }
                software = text
            case ExtensionType.kinds: kinds = value.map { Register.Kind(rawValue: $0) }
            default: return
            }
        }
        self.software = software
        self.listedKinds = kinds
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
        }
    }
}
