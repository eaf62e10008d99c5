package import Bytes

/// What both ends of a session know of it, from WELCOME: `id 16 | secret 32`
package struct SessionKey: Equatable, Sendable {
    package static let idSize = 16
    package static let secretSize = 32
    package static let size = Self.idSize + Self.secretSize

    /// Names the session in RESUME.
    package let id: [UInt8]
    /// Proves that RESUME comes from the session's agent. It is sent only in WELCOME.
    package let secret: [UInt8]

    package init(id: [UInt8], secret: [UInt8]) {
        precondition(id.count == Self.idSize && secret.count == Self.secretSize, "a session key has 16 and 32 bytes")
        self.id = id
        self.secret = secret
    }

    init(_ value: [UInt8]) throws(WireError) {
        guard value.count == Self.size else { throw .badValue(.extensionField) }
        self.id = Array(value[..<Self.idSize])
        self.secret = Array(value[Self.idSize...])
    }
}

/// RESUME: the agent continues a session on this connection.
///
/// `session id 16 | epoch u32 | handled u64 | proof 32 | extensions`
package struct Resume: Equatable, Sendable {
    package static let proofSize = 32
    /// The label of the proof, before the exporter, the session's id, the epoch and `handled`.
    package static let proofLabel = "diglett resume"
    /// The label of the TLS exporter (RFC 8446, 7.5) that binds the proof to the connection.
    package static let exporterLabel = "EXPORTER-diglett-resume"
    package static let exporterSize = 32

    package var sessionID: [UInt8]
    /// 1 for the first attempt of a session; each attempt adds 1.
    package var epoch: UInt32
    /// Bytes of counted frames that the agent has handled.
    package var handled: UInt64
    /// HMAC-SHA256 with the session's secret over ``proven(exporter:)``.
    package var proof: [UInt8]

    package init(sessionID: [UInt8], epoch: UInt32, handled: UInt64, proof: [UInt8] = []) {
        self.sessionID = sessionID
        self.epoch = epoch
        self.handled = handled
        self.proof = proof
    }

    package init(payload: RawSpan) throws(WireError) {
        var reader = ByteReader(payload)
        self.sessionID = try reader.array(SessionKey.idSize, .sessionID)
        self.epoch = try reader.integer(.epoch)
        self.handled = try reader.integer(.handled)
        self.proof = try reader.array(Self.proofSize, .proof)
        try reader.extensions { (_, _) throws(WireError) in }
    }

    package func encode(into out: inout ByteQueue) {
        precondition(self.proof.count == Self.proofSize, "a proof has 32 bytes")
        encodeFrame(.resume, into: &out) { out in
            out.append(self.sessionID)
            out.append(self.epoch)
            out.append(self.handled)
            out.append(self.proof)
        }
    }

    /// The bytes that the proof covers: `label | exporter | session id | epoch | handled`.
    ///
    /// - Parameter exporter: ``exporterSize`` bytes of the connection's TLS exporter.
    package func proven(exporter: [UInt8]) -> [UInt8] {
        var bytes = Array(Self.proofLabel.utf8) + exporter + self.sessionID
        withUnsafeBytes(of: self.epoch.bigEndian) { bytes += $0 }
        withUnsafeBytes(of: self.handled.bigEndian) { bytes += $0 }
        return bytes
    }
}

/// RESUMED: the answer to RESUME. `code u16 | reserved u16 | epoch u32 | handled u64 | extensions`
package struct Resumed: Equatable, Sendable {
    /// `none`: the session continues here. `session-gone`: the agent logs in instead.
    package var code: ErrorCode
    /// The epoch of the RESUME.
    package var epoch: UInt32
    /// Bytes of counted frames that the gateway has handled; 0 with another code than `none`.
    package var handled: UInt64

    package init(code: ErrorCode, epoch: UInt32, handled: UInt64) {
        self.code = code
        self.epoch = epoch
        self.handled = handled
    }

    package init(payload: RawSpan) throws(WireError) {
        var reader = ByteReader(payload)
        self.code = ErrorCode(rawValue: try reader.integer(.code))
        let _: UInt16 = try reader.integer(.reserved)
        self.epoch = try reader.integer(.epoch)
        self.handled = try reader.integer(.handled)
        try reader.extensions { (_, _) throws(WireError) in }
    }

    package func encode(into out: inout ByteQueue) {
        encodeFrame(.resumed, into: &out) { out in
            out.append(self.code.rawValue)
            out.append(UInt16(0))
            out.append(self.epoch)
            out.append(self.handled)
        }
    }
}
