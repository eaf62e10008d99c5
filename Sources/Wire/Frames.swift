package import Bytes

// The payloads of the frames, in the order of their type numbers. Each type documents its layout, encodes itself with
// its header (`encode`) and decodes exactly one payload (`init(payload:)`).

/// LOGIN: identifies the agent.
///
/// `method u8 | instance key 32 | run u64 | token length u16 | token | extensions`
package struct Login: Equatable, Sendable {
    /// How the agent proves its identity.
    ///
    /// The set is open: a gateway refuses a method that it does not know with `method-not-supported`.
    package struct Method: RawRepresentable, Hashable, Sendable {
        package let rawValue: UInt8

        package init(rawValue: UInt8) { self.rawValue = rawValue }

        /// By its instance key alone, at open gateways.
        package static let instance = Method(rawValue: 0)
        package static let token = Method(rawValue: 1)
        /// By the client certificate of the TLS handshake.
        package static let certificate = Method(rawValue: 2)

        /// The methods that this program knows.
        package static let known: [Method] = [.instance, .token, .certificate]
    }

    package static let instanceKeySize = 32
    /// Longest token in bytes.
    package static let maximumToken = 1_024

    package var method: Method
    /// Random bytes from the agent's state directory. They distinguish this installation from others.
    package var instanceKey: [UInt8]
    /// Random, new at each start of the program. It distinguishes a returning agent from a second program.
    package var run: UInt64
    package var token: String
    /// Whether the agent accepts a note after the address in REGISTERED.
    package var takesNotes: Bool

    package init(method: Method, instanceKey: [UInt8], run: UInt64, token: String, takesNotes: Bool = false) {
        precondition(instanceKey.count == Self.instanceKeySize, "an instance key has 32 bytes")
        self.method = method
        self.instanceKey = instanceKey
        self.run = run
        self.token = token
        self.takesNotes = takesNotes
    }

    package init(payload: RawSpan) throws(WireError) {
        var reader = ByteReader(payload)
        self.method = Method(rawValue: try reader.integer(.method))
        self.instanceKey = try reader.array(Self.instanceKeySize, .instanceKey)
        self.run = try reader.integer(.run)
        let length: UInt16 = try reader.integer(.token)
        self.token = try reader.text(Int(length), atMost: Self.maximumToken, .token)
        var takesNotes = false
        try reader.extensions { (type, _) throws(WireError) in
            if type == ExtensionType.notes { takesNotes = true }
        }
        self.takesNotes = takesNotes
    }

    package func encode(into out: inout ByteQueue) {
        encodeFrame(.login, into: &out) { out in
            let token = Array(self.token.utf8)
            precondition(token.count <= Self.maximumToken, "token too long")
            out.append(self.method.rawValue)
            out.append(self.instanceKey)
            out.append(self.run)
            out.append(UInt16(token.count))
            out.append(token)
            guard self.takesNotes else { return }
            out.append(ExtensionType.notes)
            out.append(UInt16(0))
        }
    }
}

/// WELCOME: the login was accepted. `link id u64 | names u16 | reserved u16 | extensions`
package struct Welcome: Equatable, Sendable {
    package var linkID: UInt64
    /// How many names this link may have at once.
    package var maximumNames: UInt16
    /// The session that this login begins; nil if it cannot be resumed.
    package var session: SessionKey?

    package init(linkID: UInt64, maximumNames: UInt16, session: SessionKey? = nil) {
        self.linkID = linkID
        self.maximumNames = maximumNames
        self.session = session
    }

    package init(payload: RawSpan) throws(WireError) {
        var reader = ByteReader(payload)
        self.linkID = try reader.integer(.linkID)
        self.maximumNames = try reader.integer(.names)
        let _: UInt16 = try reader.integer(.names)
        var session: SessionKey?
        try reader.extensions { (type, value) throws(WireError) in
            guard type == ExtensionType.session else { return }
            session = try SessionKey(value)
        }
        self.session = session
    }

    package func encode(into out: inout ByteQueue) {
        encodeFrame(.welcome, into: &out) { out in
            out.append(self.linkID)
            out.append(self.maximumNames)
            out.append(UInt16(0))
            guard let session = self.session else { return }
            out.append(ExtensionType.session)
            out.append(UInt16(SessionKey.size))
            out.append(session.id)
            out.append(session.secret)
        }
    }
}

/// REGISTER: expose a name. `exposure u16 | kind u8 | name length u8 | wanted port u16 | name | extensions`
package struct Register: Equatable, Sendable {
    /// What is exposed.
    ///
    /// The set is open: a gateway refuses a kind that it does not know with `kind-not-supported`.
    package struct Kind: RawRepresentable, Hashable, Sendable {
        package let rawValue: UInt8

        package init(rawValue: UInt8) { self.rawValue = rawValue }

        package static let tcp = Kind(rawValue: 1)

        /// The kinds that this program knows.
        package static let known: [Kind] = [.tcp]
        /// The kinds of a gateway that lists no kinds in its HELLO.
        package static let assumed: [Kind] = [.tcp]
    }

    /// The agent's own number for the exposure, unique on the link.
    package var exposure: UInt16
    package var kind: Kind
    /// The requested public port, or 0 for any.
    package var port: UInt16
    package var name: String

    package init(exposure: UInt16, kind: Kind = .tcp, port: UInt16, name: String) {
        self.exposure = exposure
        self.kind = kind
        self.port = port
        self.name = name
    }

    package init(payload: RawSpan) throws(WireError) {
        var reader = ByteReader(payload)
        self.exposure = try reader.integer(.exposure)
        self.kind = Kind(rawValue: try reader.integer(.kind))
        let length: UInt8 = try reader.integer(.name)
        self.port = try reader.integer(.port)
        self.name = try reader.text(Int(length), atMost: 255, .name)
        try reader.extensions { (_, _) throws(WireError) in }
    }

    package func encode(into out: inout ByteQueue) {
        encodeFrame(.register, into: &out) { out in
            let name = Array(self.name.utf8.prefix(255))
            out.append(self.exposure)
            out.append(self.kind.rawValue)
            out.append(UInt8(name.count))
            out.append(self.port)
            out.append(name)
        }
    }
}

/// REGISTERED: the answer to REGISTER, and later the notice that an exposure is gone.
///
/// `exposure u16 | code u16 | public port u16 | text`. With code 0 the text is the public address, otherwise the
/// reason.
package struct Registered: Equatable, Sendable {
    /// Longest text in bytes.
    package static let maximumText = 512

    package var exposure: UInt16
    package var code: ErrorCode
    package var port: UInt16
    package var text: String

    /// What `text` says about a granted name: the address or URL, and after a line feed a note for the log. Only agents
    /// whose LOGIN accepts notes get one.
    package var place: (address: String, note: String?) {
        // By scalars: CR LF is one Character.
        let scalars = self.text.unicodeScalars
        guard let end = scalars.firstIndex(of: "\n") else { return (self.text, nil) }
        return (String(scalars[..<end]), String(scalars[scalars.index(after: end)...]))
    }

    /// The text of a granted name; a note that would make it too long is left out.
    package static func text(address: String, note: String?) -> String {
        guard let note, address.utf8.count + 1 + note.utf8.count <= self.maximumText else { return address }
        return "\(address)\n\(note)"
    }

    package init(exposure: UInt16, code: ErrorCode, port: UInt16, text: String) {
        self.exposure = exposure
        self.code = code
        self.port = port
        self.text = text
    }

    package init(payload: RawSpan) throws(WireError) {
        var reader = ByteReader(payload)
        self.exposure = try reader.integer(.exposure)
        self.code = ErrorCode(rawValue: try reader.integer(.code))
        self.port = try reader.integer(.port)
        self.text = try reader.text(reader.remaining, atMost: Self.maximumText, .text)
    }

    package func encode(into out: inout ByteQueue) {
        encodeFrame(.registered, into: &out) { out in
            out.append(self.exposure)
            out.append(self.code.rawValue)
            out.append(self.port)
            out.append(utf8Prefix(self.text, Self.maximumText))
        }
    }
}

/// An address and port on the wire: `family u8 | address 16 | port u16`. The family is 4, 6, or 0 for an unknown
/// address.
package struct WireAddress: Equatable, Hashable, Sendable {
    package static let size = 19
    package static let none = WireAddress(family: 0, bytes: (0, 0), port: 0)

    package var family: UInt8
    /// The 16 bytes as two numbers, most significant first; an IPv4 address fills the first four bytes.
    package var high: UInt64
    package var low: UInt64
    package var port: UInt16

    package init(family: UInt8, bytes: (UInt64, UInt64), port: UInt16) {
        self.family = family
        self.high = bytes.0
        self.low = bytes.1
        self.port = port
    }

    init(_ reader: inout ByteReader) throws(WireError) {
        self.family = try reader.integer(.address)
        self.high = try reader.integer(.address)
        self.low = try reader.integer(.address)
        self.port = try reader.integer(.address)
        guard self.family == 0 || self.family == 4 || self.family == 6 else { throw .badValue(.address) }
    }

    func encode(into out: inout ByteQueue) {
        out.append(self.family)
        out.append(self.high)
        out.append(self.low)
        out.append(self.port)
    }
}

extension WireAddress: CustomStringConvertible {
    /// `192.0.2.1:80`, `[2001:db8::1]:80`, or `-` for an unknown address.
    package var description: String {
        switch self.family {
        case 4: "\(self.host):\(self.port)"
        case 6: "[\(self.host)]:\(self.port)"
        default: self.host
        }
    }

    /// The address without brackets and port, or `-` for an unknown address.
    package var host: String {
        switch self.family {
        case 4: (0..<4).map { String((self.high >> (56 - 8 * UInt64($0))) & 0xFF) }.joined(separator: ".")
        case 6: self.ip6Text
        default: "-"
        }
    }

    /// RFC 5952: lower case, no leading zeros, the longest run of two or more zero groups as `::`.
    private var ip6Text: String {
        var groups: [UInt64] = []
        for word in [self.high, self.low] {
            for shift in [48, 32, 16, 0] { groups.append((word >> UInt64(shift)) & 0xFFFF) }
        }
        var best = 0..<0
        var start = 0
        for index in 0...8 where index == 8 || groups[index] != 0 {
            if index - start > best.count, index - start >= 2 { best = start..<index }
            start = index + 1
        }
        let text = groups.map { String($0, radix: 16) }
        guard !best.isEmpty else { return text.joined(separator: ":") }
        return text[..<best.lowerBound].joined(separator: ":") + "::" + text[best.upperBound...].joined(separator: ":")
    }
}

/// OPEN: a visitor has connected. `exposure u16 | receive limit u64 | visitor address | local address`
package struct Open: Equatable, Sendable {
    package static let size = 2 + 8 + 2 * WireAddress.size

    package var exposure: UInt16
    /// The agent may send bytes up to this offset.
    package var limit: UInt64
    package var visitor: WireAddress
    package var local: WireAddress

    package init(exposure: UInt16, limit: UInt64, visitor: WireAddress, local: WireAddress) {
        self.exposure = exposure
        self.limit = limit
        self.visitor = visitor
        self.local = local
    }

    package init(payload: RawSpan) throws(WireError) {
        var reader = ByteReader(payload)
        self.exposure = try reader.integer(.exposure)
        self.limit = try reader.integer(.limit)
        self.visitor = try WireAddress(&reader)
        self.local = try WireAddress(&reader)
        try reader.end()
    }

    package func encode(id: UInt32, into out: inout ByteQueue) {
        encodeFrame(.open, id: id, into: &out) { out in
            out.append(self.exposure)
            out.append(self.limit)
            self.visitor.encode(into: &out)
            self.local.encode(into: &out)
        }
    }
}

/// GOAWAY: the link will end. `code u16 | retry after seconds u16 | reserved u32 | text`
///
/// Earlier releases sent the id of their last stream in the reserved field.
package struct GoAway: Equatable, Sendable {
    /// Longest text in bytes.
    package static let maximumText = 128

    package var code: ErrorCode
    package var retryAfterSeconds: UInt16
    package var text: String

    package init(code: ErrorCode, retryAfterSeconds: UInt16 = 0, text: String = "") {
        self.code = code
        self.retryAfterSeconds = retryAfterSeconds
        self.text = text
    }

    package init(payload: RawSpan) throws(WireError) {
        var reader = ByteReader(payload)
        self.code = ErrorCode(rawValue: try reader.integer(.code))
        self.retryAfterSeconds = try reader.integer(.retryAfter)
        let _: UInt32 = try reader.integer(.reserved)
        self.text = try reader.text(reader.remaining, atMost: Self.maximumText, .text)
    }

    package func encode(into out: inout ByteQueue) {
        encodeFrame(.goAway, into: &out) { out in
            out.append(self.code.rawValue)
            out.append(self.retryAfterSeconds)
            out.append(UInt32(0))
            out.append(utf8Prefix(self.text, Self.maximumText))
        }
    }
}

/// Frames whose payload is a single number: UNREGISTER, RESET (u16); ACCEPT, WINDOW, PING, PONG (u64).
package enum NumberFrame {
    package static func read<T: FixedWidthInteger & BitwiseCopyable>(
        _ payload: RawSpan, _ field: StaticField
    ) throws(WireError) -> T {
        var reader = ByteReader(payload)
        let value: T = try reader.integer(field)
        try reader.end()
        return value
    }

    package static func encode<T: FixedWidthInteger>(
        _ type: FrameType, id: UInt32 = 0, _ value: T, into out: inout ByteQueue
    ) {
        out.append(FrameHeader(id: id, type: type, length: MemoryLayout<T>.size).word)
        out.append(value)
    }
}

/// Appends a frame with the payload that `body` writes, then fills in the length.
func encodeFrame(
    _ type: FrameType, id: UInt32 = 0, into out: inout ByteQueue, _ body: (inout ByteQueue) -> Void
) {
    let start = out.count
    out.append(FrameHeader(id: id, type: type, length: 0).word)
    body(&out)
    let length = out.count - start - WireConstant.headerSize
    precondition(length <= WireConstant.maximumPayload, "frame too long")
    out.overwrite(UInt16(length), at: start + 6)
}

/// The longest prefix of `text` that fits in `atMost` bytes of UTF-8 without splitting a character.
private func utf8Prefix(_ text: String, _ atMost: Int) -> [UInt8] {
    var bytes: [UInt8] = []
    for character in text {
        let next = Array(character.utf8)
        if bytes.count + next.count > atMost { break }
        bytes += next
    }
    return bytes
}
