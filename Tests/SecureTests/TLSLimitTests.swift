import Bytes
import Foundation
import Secure
import Testing

@Suite("Limits of TLS")
struct TLSLimitTests {
    private func carry(_ pair: TLSPair) throws -> SecurityError? {
        do {
            _ = try pair.carry(size: 1 << 20)
            return nil
        } catch let error as SecurityError { return error }
    }

    @Test("a client sends no message after the handshake before its login, then as many as it has saved up, 16 at most")
    func messages() throws {
        for saved in [0, 1, 15, 16, 17] {
            let pair = try TLSPair(identity: try Identity.selfSigned(commonName: "x"), recordsPerKey: 1)
            #expect(try self.carry(pair) == nil)
            for _ in 0..<saved { pair.server.allowMessage() }
            func send() throws { try [1].withUnsafeBytes { try pair.client.encrypt($0, output: &pair.toServer) } }
            // The message that changes the key goes before the next record.
            try send()
            for _ in 0..<min(saved, TLSSession.mostMessages) {
                try send()
                #expect(try self.carry(pair) == nil, "\(saved)")
            }
            try send()
            #expect(try self.carry(pair)?.limit == .messages, "\(saved)")
        }
    }

    @Test("a client's certificates have 16 KiB at most")
    func certificates() throws {
        let mine = try Identity.selfSigned(commonName: "agent")
        let lines = String(decoding: mine.certificatePEM, as: UTF8.self).split(separator: "\n")
        let size = try #require(Data(base64Encoded: lines.filter { !$0.hasPrefix("-") }.joined())).count
        // RFC 8446, 4.4.2: each certificate has a length of 3 bytes and an empty list of extensions of 2; around them are
        // a header of 4, a context of 1 and a length of 3 bytes, the first of which OpenSSL does not count.
        let most = (TLSContext.mostClientCertificates - 4) / (size + 5)
        for (count, limit) in [(most, nil), (most + 1, SecurityError.Limit.certificates)]
            as [(Int, SecurityError.Limit?)]
        {
            let chain = (0..<count).flatMap { _ in mine.certificatePEM }
            let pair = try TLSPair(
                identity: try Identity.selfSigned(commonName: "gateway"),
                clientIdentity: try Identity.load(keyPEM: mine.keyPEM, certificatePEM: chain))
            #expect(try self.carry(pair)?.limit == limit, "\(count) certificates of \(size) bytes")
        }
    }

    @Test("a ClientHello has 16 KiB at most, and 64 records")
    func clientHello() {
        func state(size: Int, recordSize: Int = 1 << 14) -> ClientHello.State {
            let body = size - 4
            var message: [UInt8] = [1, UInt8(body >> 16), UInt8(body >> 8 & 0xFF), UInt8(body & 0xFF)]
            message += [UInt8](repeating: 0, count: body)
            var bytes: [UInt8] = []
            for start in stride(from: 0, to: message.count, by: recordSize) {
                let piece = message[start..<min(start + recordSize, message.count)]
                bytes += [22, 3, 1, UInt8(piece.count >> 8), UInt8(piece.count & 0xFF)] + piece
            }
            return ClientHello.state(of: bytes.span.bytes)
        }
        #expect(ClientHello.most == 16 * 1_024)
        #expect(state(size: ClientHello.most) == .whole)
        #expect(state(size: ClientHello.most + 1) == .tooLarge)
        #expect(state(size: 640, recordSize: 10) == .whole)
        #expect(state(size: 641, recordSize: 10) == .tooLarge)
        #expect(ClientHello.state(of: ([22, 3] as [UInt8]).span.bytes) == .needMore)
        #expect(ClientHello.state(of: ([22, 2] as [UInt8]).span.bytes) == .invalid)
    }
}
