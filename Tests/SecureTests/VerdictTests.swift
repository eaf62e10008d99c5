import Bytes
import Foundation
import Secure
import Testing

/// How a client verifies a gateway's certificate with the system's authorities.
@Suite("Certificate verification")
struct VerdictTests {
    /// Completes a handshake with a server that presents `certificate`, as a client that dials `host` and trusts both
    /// roots. Returns the client's verdict.
    private func verdict(_ certificate: String, host: String = "gw.test") throws -> ChannelPeer.SystemVerdict? {
        let file = FileManager.default.temporaryDirectory.appendingPathComponent("diglett-\(UUID().uuidString).pem")
            .path
        try "\(Certificates.root)\n\(Certificates.oldRoot)\n".write(toFile: file, atomically: true, encoding: .utf8)
        defer { try? FileManager.default.removeItem(atPath: file) }
        let identity = try Identity.load(
            keyPEM: Array(Certificates.key.utf8), certificatePEM: Array(certificate.utf8))
        let pair = try TLSPair(
            server: .server(identity: identity, applicationProtocol: "diglett/2"),
            client: .client(
                identity: nil, trustsSystemRoots: true, authorities: file, applicationProtocol: "diglett/2"),
            serverName: host)
        _ = try pair.carry(size: 4_096)
        return pair.client.peer?.system
    }

    @Test("a certificate for the host from a trusted authority is trusted")
    func trusted() throws { #expect(try self.verdict(Certificates.valid) == .trusted) }

    // The dates are 2010-01-01 and 2190-01-01.
    @Test(
        "a date error is reported as such, with the date if the certificate itself caused it",
        arguments: [
            (Certificates.expired, ChannelPeer.SystemVerdict.expired(1_262_304_000)),
            (Certificates.early, .notYetValid(6_942_585_600)),
            (Certificates.byOldRoot, .expired(nil)),
        ])
    func dates(_ certificate: String, _ expected: ChannelPeer.SystemVerdict) throws {
        #expect(try self.verdict(certificate) == expected)
    }

    @Test(
        "a date error does not hide a wrong name or signature",
        arguments: [
            (Certificates.expired, "other.test"), (Certificates.byOldRoot, "other.test"),
            (Certificates.forged, "gw.test"), (Certificates.forgedByOldRoot, "gw.test"),
        ])
    func otherFaults(_ certificate: String, _ host: String) throws {
        guard case .untrusted = try self.verdict(certificate, host: host) else {
            return _ = Issue.record("the certificate was not refused for what is wrong with it")
        }
    }
}

@Suite("Certificate contents")
struct CertificateTests {
    private func identity(_ certificate: String) throws -> Identity {
        try Identity.load(keyPEM: Array(Certificates.key.utf8), certificatePEM: Array(certificate.utf8))
    }

    @Test("the validity period is read")
    func dates() throws {
        let expired = try self.identity(Certificates.expired)
        #expect(expired.begins == 946_684_800)
        #expect(expired.expires == 1_262_304_000)
        let years = try #require(Identity.selfSigned(commonName: "x").expires) / (365 * 86_400)
        #expect(years > 100)
    }

    @Test("the issuer and the host names are read")
    func issuer() throws {
        let valid = try self.identity(Certificates.valid)
        #expect(!valid.isSelfIssued)
        #expect(valid.names("gw.test") && !valid.names("other.test") && !valid.names("192.0.2.1"))
        #expect(try Identity.selfSigned(commonName: "x").isSelfIssued)
    }

    @Test("two identities are the same only with the same bytes and chain")
    func same() throws {
        let valid = try self.identity(Certificates.valid)
        #expect(valid.isSame(as: try self.identity(Certificates.valid)))
        #expect(!valid.isSame(as: try self.identity(Certificates.expired)))
        #expect(!valid.isSame(as: try self.identity("\(Certificates.valid)\n\(Certificates.root)")))
    }
}
