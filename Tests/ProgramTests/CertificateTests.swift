import Foundation
import Gateway
import Reactor
import Secure
import Settings
import TestSupport
import Testing

@Suite("Certificate dates")
struct CertificateDatesTests {
    private static let day: Int64 = 86_400
    /// Valid for 90 days.
    private let dates = CertificateDates(begins: 0, expires: 90 * Self.day)

    @Test(
        "lead to a warning 30 days, 7 days and 1 day before the end, at the end and each day after it",
        arguments: [
            (59, 0), (60, 1), (82, 1), (83, 2), (88, 2), (89, 3), (90, 4), (91, 5), (92, 6), (100, 14),
        ] as [(Int64, Int)])
    func stages(_ days: Int64, _ stage: Int) {
        #expect(self.dates.stage(at: days * Self.day) == stage)
    }

    @Test("are described in words")
    func words() {
        func text(days: Int64, hours: Int64 = 0) -> String? {
            self.dates.warning("the certificate x", at: days * Self.day + hours * 3_600)
        }
        #expect(text(days: 59) == nil)
        #expect(text(days: 60) == "the certificate x expires in 30 days, on 1970-04-01T00:00:00Z: renew it")
        #expect(text(days: 88, hours: 12) == "the certificate x expires in 1 day, on 1970-04-01T00:00:00Z: renew it")
        #expect(text(days: 89, hours: 21) == "the certificate x expires in 3 hours, on 1970-04-01T00:00:00Z: renew it")
        #expect(text(days: 90)?.hasPrefix("the certificate x expired on 1970-04-01T00:00:00Z: renew it") == true)
        #expect(
            self.dates.warning("the certificate x", at: -1)
                == "the certificate x is not valid before 1970-01-01T00:00:00Z: check this machine's clock")
    }

    @Test("a short-lived certificate causes no warning while it is fresh")
    func fresh() {
        let short = CertificateDates(begins: 0, expires: 6 * Self.day)
        #expect(short.isFresh(at: 2 * Self.day) && !short.isFresh(at: 3 * Self.day))
    }
}

@Suite("A gateway whose certificate is renewed", .serialized, .timeLimit(.minutes(1)))
struct CertificateWatchTests {
    /// A gateway with certificate files of the operator.
    private final class Stand {
        let world: World
        let directory: String
        var certificate: String { "\(self.directory)/tls.pem" }
        var key: String { "\(self.directory)/tls.key" }

        init(_ identity: Identity) throws {
            self.directory =
                FileManager.default.temporaryDirectory.appendingPathComponent("diglett-\(UUID().uuidString)").path
            try FileManager.default.createDirectory(atPath: self.directory, withIntermediateDirectories: true)
            let paths = ("\(self.directory)/tls.pem", "\(self.directory)/tls.key")
            try FileAccess.replace(paths.0, with: identity.certificatePEM, durable: false)
            try FileAccess.replace(paths.1, with: identity.keyPEM, durable: false)
            self.world = try World(configuration: "tls-cert = \"\(paths.0)\"\ntls-key = \"\(paths.1)\"\n")
        }

        func write(certificate identity: Identity) throws {
            try FileAccess.replace(self.certificate, with: identity.certificatePEM, durable: false)
        }

        func write(key identity: Identity) throws {
            try FileAccess.replace(self.key, with: identity.keyPEM, durable: false)
        }

        func count(_ text: String) -> Int { self.world.log.lines.count { $0.contains(text) } }

        /// Waits until the log contains a text this many times.
        func wait(_ text: String, times: Int = 1) {
            #expect(self.world.loop.run { self.count(text) >= times }, "\(text) is not in \(self.world.log.lines)")
        }

        /// The pin that an agent has remembered.
        func pin(knownTo state: String) throws -> String {
            let known = try String(contentsOfFile: "\(self.world.directory)/\(state)/known_gateways", encoding: .utf8)
            return String(try #require(known.split(whereSeparator: \.isWhitespace).last))
        }

        func finish() {
            self.world.finish()
            try? FileManager.default.removeItem(atPath: self.directory)
        }
    }

    private static let isUsed = "was renewed and is used for new connections, valid until"
    private static let isKept = "; the gateway keeps its current certificate, valid until"

    @Test("uses it for new connections, and keeps its links")
    func renewal() throws {
        let (first, second) = (try Identity.selfSigned(commonName: "one"), try Identity.selfSigned(commonName: "two"))
        let stand = try Stand(first)
        _ = try stand.world.startAgent(["one=127.0.0.1:9"], state: "one")
        _ = try stand.world.port(of: "one")
        try stand.write(certificate: second)
        try stand.write(key: second)
        stand.wait(Self.isUsed)
        stand.wait("pin \(second.pin), a new key: agents with the pin \(first.pin) refuse it")
        _ = try stand.world.startAgent(["two=127.0.0.1:9"], state: "two")
        _ = try stand.world.port(of: "two")
        #expect(try stand.pin(knownTo: "one") == first.pin.description)
        #expect(try stand.pin(knownTo: "two") == second.pin.description)
        #expect(stand.count("lost the link") == 0)
        stand.finish()
    }

    @Test("keeps the old one while the files do not match, and reports that once per change")
    func mismatch() throws {
        let (first, second) = (try Identity.selfSigned(commonName: "one"), try Identity.selfSigned(commonName: "two"))
        let stand = try Stand(first)
        try stand.write(certificate: second)
        stand.wait(Self.isKept)
        // The gateway checks the unchanged files twice more.
        var isLater = false
        let timer = LoopTimer(loop: stand.world.loop) { isLater = true }
        timer.start(after: 2_200)
        #expect(stand.world.loop.run { isLater })
        timer.close()
        #expect(stand.count(Self.isKept) == 1)
        _ = try stand.world.startAgent(["one=127.0.0.1:9"], state: "one")
        _ = try stand.world.port(of: "one")
        #expect(try stand.pin(knownTo: "one") == first.pin.description)
        // An explicit reload reports it again.
        stand.world.gateway.reload()
        #expect(stand.count(Self.isKept) == 2)
        try stand.write(certificate: first)
        stand.wait("is unchanged and usable again")
        #expect(stand.count(Self.isUsed) == 0)
        stand.finish()
    }

    @Test("reads it at once on reload")
    func reload() throws {
        let second = try Identity.selfSigned(commonName: "two")
        let stand = try Stand(try Identity.selfSigned(commonName: "one"))
        try stand.write(certificate: second)
        try stand.write(key: second)
        stand.world.gateway.reload()
        #expect(stand.count(Self.isUsed) == 1)
        stand.world.gateway.reload()
        #expect(stand.count(Self.isUsed) == 1)
        stand.finish()
    }
}
