import Bytes
import Secure
import Testing

/// A client and a server. The test carries the bytes between them.
final class TLSPair {
    let client: TLSSession
    let server: TLSSession
    var toServer = ByteQueue()
    var toClient = ByteQueue()

    init(server: TLSContext, client: TLSContext, serverName: String?) throws {
        self.server = try TLSSession(context: server)
        self.client = try TLSSession(context: client, serverName: serverName)
        try self.client.start(output: &self.toServer)
    }

    convenience init(
        identity: Identity, clientIdentity: Identity? = nil, clientProtocol: String = "diglett/2",
        serverName: String? = nil, recordsPerKey: Int = 1 << 23
    ) throws {
        let serverContext = try TLSContext.server(identity: identity, applicationProtocol: "diglett/2")
        let clientContext = try TLSContext.client(
            identity: clientIdentity, trustsSystemRoots: false, applicationProtocol: clientProtocol)
        clientContext.recordsPerKey = recordsPerKey
        try self.init(server: serverContext, client: clientContext, serverName: serverName)
    }

    /// Carries bytes in pieces of `size` until both queues are empty. Returns the plaintext that each side received.
    func carry(size: Int) throws -> (atServer: [UInt8], atClient: [UInt8]) {
        var result: (atServer: [UInt8], atClient: [UInt8]) = ([], [])
        while !self.toServer.isEmpty || !self.toClient.isEmpty {
            result.atServer += try self.move(&self.toServer, to: self.server, answers: &self.toClient, size)
            result.atClient += try self.move(&self.toClient, to: self.client, answers: &self.toServer, size)
        }
        return result
    }

    private func move(
        _ from: inout ByteQueue, to session: TLSSession, answers: inout ByteQueue, _ size: Int
    ) throws -> [UInt8] {
        let piece = from.withReadable { Array($0.prefix(size)) }
        guard !piece.isEmpty else { return [] }
        from.consume(piece.count)
        var plain = [UInt8](repeating: 0, count: piece.count + 16_384 + 1)
        let count = try piece.withUnsafeBytes { input in
            try plain.withUnsafeMutableBytes { try session.receive(input, into: $0, output: &answers) }
        }
        return Array(plain[0..<count])
    }
}

@Suite("TLS")
struct TLSTests {
    @Test("a plaintext alert ends the handshake with its reason", arguments: [TLSAlert.accessDenied, .internalError])
    func alerts(_ alert: TLSAlert) throws {
        let pair = try TLSPair(identity: try Identity.selfSigned(commonName: "test"))
        pair.toServer.removeAll()
        pair.toClient.append(alert.record)
        let error = #expect(throws: SecurityError.self) { try pair.carry(size: 1_000) }
        #expect(error?.alert == alert)
    }

    @Test("completes the handshake and carries bytes both ways, for any piece size", arguments: [1, 7, 1_000, 1 << 20])
    func roundTrip(_ size: Int) throws {
        let identity = try Identity.selfSigned(commonName: "test")
        let pair = try TLSPair(identity: identity)
        _ = try pair.carry(size: size)
        #expect(pair.client.peer?.pin == identity.pin)
        #expect(pair.client.peer?.system == .untrusted("application verification failure"))
        #expect(pair.server.isEstablished)
        #expect(pair.server.peer?.pin == nil)
        let bytes = (0..<100_000).map { UInt8(truncatingIfNeeded: $0 &* 31) }
        try bytes.withUnsafeBytes { try pair.client.encrypt($0, output: &pair.toServer) }
        try [1, 2, 3].withUnsafeBytes { try pair.server.encrypt($0, output: &pair.toClient) }
        let came = try pair.carry(size: max(size, 500))
        #expect(Bool(came.atServer == bytes))
        #expect(came.atClient.count == 24)
    }

    @Test("gives the server the pin of the client's certificate")
    func clientCertificate() throws {
        let mine = try Identity.selfSigned(commonName: "agent")
        let pair = try TLSPair(identity: try Identity.selfSigned(commonName: "gateway"), clientIdentity: mine)
        _ = try pair.carry(size: 4_096)
        #expect(pair.server.peer?.pin == mine.pin)
    }

    @Test("refuses a peer with another application protocol")
    func alpn() throws {
        let pair = try TLSPair(identity: try Identity.selfSigned(commonName: "x"), clientProtocol: "http/1.1")
        #expect(throws: SecurityError.self) { try pair.carry(size: 4_096) }
        #expect(!pair.server.isEstablished)
    }

    @Test("a corrupted record is an error")
    func garbage() throws {
        let pair = try TLSPair(identity: try Identity.selfSigned(commonName: "x"))
        _ = try pair.carry(size: 4_096)
        try [1, 2, 3].withUnsafeBytes { try pair.client.encrypt($0, output: &pair.toServer) }
        var record = pair.toServer.withReadable { Array($0) }
        pair.toServer.removeAll()
        record[record.count - 1] ^= 1
        pair.toServer.append(record)
        #expect(throws: SecurityError.self) { try pair.carry(size: 4_096) }
    }

    @Test("changes its keys after the configured number of records, unnoticed by the peer")
    func keyUpdate() throws {
        let identity = try Identity.selfSigned(commonName: "x")
        let pair = try TLSPair(identity: identity, recordsPerKey: 3)
        _ = try pair.carry(size: 4_096)
        let bytes = (0..<200_000).map { UInt8(truncatingIfNeeded: $0) }
        for _ in 0..<4 { pair.server.allowMessage() }
        try bytes.withUnsafeBytes { try pair.client.encrypt($0, output: &pair.toServer) }
        let isWhole = try pair.carry(size: 4_096).atServer == bytes
        #expect(isWhole)
    }

    @Test("a client that updates its keys before its login, or too often, is disconnected", arguments: [0, 1, 16, 100])
    func keyUpdateFlood(_ allowed: Int) throws {
        let pair = try TLSPair(identity: try Identity.selfSigned(commonName: "x"), recordsPerKey: 1)
        _ = try pair.carry(size: 4_096)
        for _ in 0..<allowed { pair.server.allowMessage() }
        let byte: [UInt8] = [1]
        // A key update goes out with the next write. `allowMessage` allows at most 16 in advance.
        for _ in 0...min(allowed, 16) {
            try byte.withUnsafeBytes { try pair.client.encrypt($0, output: &pair.toServer) }
            #expect(try pair.carry(size: 4_096).atServer == byte)
        }
        try byte.withUnsafeBytes { try pair.client.encrypt($0, output: &pair.toServer) }
        #expect(throws: SecurityError("too many TLS messages after the handshake", limit: .messages)) {
            try pair.carry(size: 4_096)
        }
    }

    @Test("a burst of key updates in one read ends at the first one above the limit")
    func keyUpdateBurst() throws {
        let pair = try TLSPair(identity: try Identity.selfSigned(commonName: "x"), recordsPerKey: 1)
        _ = try pair.carry(size: 4_096)
        for _ in 0..<16 { pair.server.allowMessage() }
        for _ in 0..<1_000 { try [1].withUnsafeBytes { try pair.client.encrypt($0, output: &pair.toServer) } }
        #expect(throws: SecurityError.self) { try pair.carry(size: 1 << 20) }
        #expect(pair.server.recordsReceived <= 17)
    }

    @Test("sends close_notify to the peer when it closes")
    func closing() throws {
        let pair = try TLSPair(identity: try Identity.selfSigned(commonName: "x"))
        _ = try pair.carry(size: 4_096)
        pair.client.close(output: &pair.toServer)
        _ = try pair.carry(size: 4_096)
        #expect(pair.server.isClosedByPeer)
    }
}

@Suite("Keys")
struct KeyTests {
    @Test("an identity can be written and read back")
    func pem() throws {
        let made = try Identity.selfSigned(commonName: "gateway")
        let pem = made.keyPEM + made.certificatePEM
        #expect(try Identity.load(keyPEM: pem, certificatePEM: pem).pin == made.pin)
    }

    @Test("a key of another certificate, a missing key and a missing certificate are different errors")
    func mismatch() throws {
        let one = try Identity.selfSigned(commonName: "one")
        let two = try Identity.selfSigned(commonName: "two")
        func error(_ key: [UInt8], _ certificate: [UInt8]) -> String {
            do {
                _ = try Identity.load(keyPEM: key, certificatePEM: certificate)
                return ""
            } catch { return "\(error)" }
        }
        #expect(error(one.keyPEM, two.certificatePEM).contains("the key does not belong to the certificate"))
        #expect(error([1, 2], two.certificatePEM).contains("no private key"))
        #expect(error(one.keyPEM, []).contains("no certificate"))
    }

    @Test("a pin parses the text that it prints, and nothing else")
    func pin() throws {
        let pin = try Identity.selfSigned(commonName: "x").pin
        #expect(Pin(pin.description) == pin)
        #expect(pin.bytes.count == 32)
        for text in ["", "sha256/", "sha1/\(pin)", "\(pin)x", "sha256/" + String(repeating: "A", count: 44)] {
            #expect(Pin(text) == nil)
        }
    }

    @Test("SHA-256 matches the example of FIPS 180-4, and the comparison covers every byte")
    func hash() {
        let digest = SHA256.hash(Array("abc".utf8))
        #expect(digest.prefix(4).elementsEqual([0xBA, 0x78, 0x16, 0xBF]))
        #expect(SHA256.isEqual(digest, digest))
        #expect(!SHA256.isEqual(digest, Array(digest.dropLast()) + [0]))
    }
}
