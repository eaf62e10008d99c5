import Bytes
import Foundation
import Secure
import Testing

@Suite("TLS limits")
struct TLSLimitTests {
    private func carry(_ pair: TLSPair) throws -> SecurityError? {
        do {
            _ = try pair.carry(size: 1 << 20)
            return nil
        } catch let error as SecurityError { return error }
    }

    @Test("a client's certificates may have at most 16 KiB")
    func certificates() throws {
        let mine = try Identity.selfSigned(commonName: "agent")
        let lines = String(decoding: mine.certificatePEM, as: UTF8.self).split(separator: "\n")
        let size = try #require(Data(base64Encoded: lines.filter { !$0.hasPrefix("-") }.joined())).count
        // RFC 8446, 4.4.2: each certificate has a length of 3 bytes and an empty list of extensions of 2 bytes. The
        // message adds a header of 4 bytes, which OpenSSL does not count, a context of 1 byte and a length of 3
        // bytes.
        let atMost = (TLSContext.maxClientCertificates - 4) / (size + 5)
        for (count, limit) in [(atMost, nil), (atMost + 1, SecurityError.Limit.certificates)]
            as [(Int, SecurityError.Limit?)]
        {
            let chain = (0..<count).flatMap { _ in mine.certificatePEM }
            let pair = try TLSPair(
                identity: try Identity.selfSigned(commonName: "gateway"),
                clientIdentity: try Identity.load(keyPEM: mine.keyPEM, certificatePEM: chain))
            #expect(try self.carry(pair)?.limit == limit, "\(count) certificates of \(size) bytes")
        }
    }
}
