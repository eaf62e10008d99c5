import Foundation
import Logging
import Modules
import Reactor
import Settings
import Testing
import Wire

/// A file authenticator on its own loop.
private final class Desk {
    let loop: EventLoop
    let path: String
    let authenticator: FileAuthenticator
    var changes = 0
    private let directory: String
    private let log = Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() })

    init(_ text: String?, fallback: Bool = false) throws {
        self.loop = try EventLoop()
        self.directory = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString).path
        try FileManager.default.createDirectory(atPath: self.directory, withIntermediateDirectories: true)
        self.path = "\(self.directory)/agents.toml"
        if let text { try Self.write(text, self.path) }
        do {
            self.authenticator = try FileAuthenticator(
                loop: self.loop, path: self.path, logger: self.log,
                fallback: fallback ? OpenAuthenticator(acceptsStrangers: false) : nil)
        } catch {
            self.loop.close()
            throw error
        }
        self.authenticator.onChange { [unowned self] in self.changes += 1 }
    }

    private static func write(_ text: String, _ path: String) throws {
        try FileAccess.replace(path, with: Array(text.utf8), durable: false)
    }

    /// Writes the file and makes the authenticator read it.
    func change(_ text: String) throws {
        try Self.write(text, self.path)
        self.authenticator.reload()
    }

    func login(token: String = "", pin: String? = nil, version1: String? = nil) throws -> LoginVerdict {
        let login = Login(
            method: !token.isEmpty ? .token : pin == nil ? .instance : .certificate,
            instanceKey: [UInt8](repeating: 7, count: 32), run: 1, token: token)
        let request = LoginRequest(
            peer: .loopback4(port: 1), isFromLoopback: true,
            credentials: version1.map { .version1(token: $0) } ?? .version2(login),
            certificatePin: pin)
        var verdict: LoginVerdict?
        _ = self.authenticator.authenticate(request) { verdict = $0 }
        return try #require(verdict)
    }

    func grant(token: String = "", pin: String? = nil) throws -> LoginGrant {
        guard case .granted(let grant) = try self.login(token: token, pin: pin) else { throw CancellationError() }
        return grant
    }

    func name(_ name: String, port: UInt16 = 0, of identity: String = "web") throws -> NameVerdict {
        var verdict: NameVerdict?
        let request = NameRequest(
            identity: identity, peer: .loopback4(port: 1), name: try #require(Name(name)), port: port)
        _ = self.authenticator.authorize(request) { verdict = $0 }
        return try #require(verdict)
    }

    func close() {
        self.authenticator.close()
        self.loop.close()
        try? FileManager.default.removeItem(atPath: self.directory)
    }
}

private let made = AgentToken.make(name: "web", secret: [UInt8](repeating: 1, count: 32))
private let other = AgentToken.make(name: "web", secret: [UInt8](repeating: 2, count: 32))
private let pin = "sha256/" + String(repeating: "A", count: 43) + "="

/// SHA-256 of the secrets above, as printed by sha256sum(1).
private let madeHash = "56d5fa7333f6d747db42c239407e5da4c32f4c79f35d092b134fd35a402d9c5c"
private let otherHash = "6c1d63bbdab437c54368cbbd8886a886a79ad977297e265eebf1f5f5f01533b9"
/// SHA-256 of `old`.
private let oldHash = "cba06b5736faf67e54b07b561eae94395e774c517a7d910a54369e1263ccfbd4"

private func entry(_ more: String = "", hash: String = madeHash) -> String {
    "[[agent]]\nname = \"web\"\ntoken = \"sha256:\(hash)\"\nnames = [\"app-*\"]\nports = \"4000-4010\"\n\(more)\n"
}

@Suite("FileAuthenticator", .serialized, .timeLimit(.minutes(1)))
struct FileAuthenticatorTests {
    @Test("accepts a token, a key and a token of version 1, each only in its own place")
    func credentials() throws {
        let desk = try Desk(entry("pins = \"\(pin)\"\nv1-token = \"sha256:\(oldHash)\"\nmax-names = 2"))
        defer { desk.close() }
        #expect(try desk.grant(token: made.token).identity == "web")
        #expect(try desk.grant(token: made.token).limits == AgentLimits(names: 2))
        #expect(try desk.grant(pin: pin).identity == "web")
        guard case .granted = try desk.login(version1: "old") else {
            Issue.record("a token of version 1 was refused")
            return
        }
        for bad in [other.token, "dgl_web_", "dgl_nobody_\(made.secret)", "old", "x"] {
            guard case .refused(.loginRefused, _) = try desk.login(token: bad) else {
                Issue.record("\(bad) was let in")
                continue
            }
        }
        for bad in [made.token, made.secret, ""] {
            guard case .refused(.loginRefused, _) = try desk.login(version1: bad) else {
                Issue.record("\(bad) was let in by version 1")
                continue
            }
        }
        guard case .refused = try desk.login() else { return _ = Issue.record("no credential was let in") }
    }

    @Test("a former token is valid until its time, and its logins are revoked then")
    func formerToken() throws {
        func rotated(until seconds: Int64) -> String {
            entry(
                "former-token = \"sha256:\(madeHash)\"\nformer-v1-token = \"sha256:\(oldHash)\"\n"
                    + "former-token-until = \"\(Timestamp.text(seconds))\"", hash: otherHash)
        }
        let desk = try Desk(entry("v1-token = \"sha256:\(oldHash)\""))
        defer { desk.close() }
        let before = try desk.grant(token: made.token)
        guard case .granted(let version1) = try desk.login(version1: "old") else { throw CancellationError() }
        try desk.change(rotated(until: Timestamp.now + 2))
        // Both logins are unchanged, and their tokens are still valid for new links.
        #expect(desk.authenticator.revocation(of: before) == nil)
        #expect(desk.authenticator.revocation(of: version1) == nil)
        #expect(try desk.grant(token: made.token) == before)
        #expect(try desk.login(version1: "old") == .granted(version1))
        let after = try desk.grant(token: other.token)
        #expect(after.identity == before.identity)
        let changes = desk.changes
        #expect(desk.loop.run { desk.changes > changes })
        let reason = "used a former token, which has expired"
        #expect(desk.authenticator.revocation(of: before) == Revocation(reason))
        #expect(desk.authenticator.revocation(of: version1) == Revocation(reason))
        #expect(desk.authenticator.revocation(of: after) == nil)
        let refusal = LoginVerdict.refused(.loginRefused, reason: "an expired former token of 'web'")
        #expect(try desk.login(token: made.token) == refusal)
        #expect(try desk.login(version1: "old") == refusal)
        // The next rotation removes the former token.
        try desk.change(entry(hash: otherHash))
        #expect(desk.authenticator.revocation(of: before) == Revocation("used a token or key that was removed"))
        #expect(try desk.login(token: made.token) == .refused(.loginRefused, reason: "a wrong token for 'web'"))
    }

    @Test("pending changes of former tokens are reported")
    func formerTokenChanges() throws {
        let desk = try Desk(entry())
        defer { desk.close() }
        let former = "former-token = \"sha256:\(oldHash)\"\nformer-token-until = \"2127-02-21\""
        try FileAccess.replace(desk.path, with: Array(entry(former, hash: otherHash).utf8), durable: false)
        #expect(
            try desk.authenticator.pendingChanges()
                == ["agent 'web': another token, former token until 2127-02-21T00:00:00Z"])
        desk.authenticator.reload()
        try FileAccess.replace(desk.path, with: Array(entry(hash: otherHash).utf8), durable: false)
        #expect(try desk.authenticator.pendingChanges() == ["agent 'web': no former token"])
    }

    @Test("names are granted by pattern, ports by range")
    func rights() throws {
        let desk = try Desk(entry())
        defer { desk.close() }
        #expect(try desk.name("app-1") == .granted(ports: [4000...4010]))
        #expect(try desk.name("app-1", port: 4010) == .granted(ports: [4000...4010]))
        guard
            case .refused(.portNotAllowed, _, "port 4011 is not among your ports (4000-4010)") = try desk.name(
                "app-1", port: 4011),
            case .refused(.nameNotAllowed, _, "'api' is not among your names (app-*)") = try desk.name("api"),
            case .refused(.nameNotAllowed, _, nil) = try desk.name("app-1", of: "nobody")
        else { return _ = Issue.record("too much was granted") }
    }

    @Test("a change revokes what it removes, and leaves the rest")
    func changes() throws {
        let desk = try Desk(entry("pins = \"\(pin)\""))
        defer { desk.close() }
        let byToken = try desk.grant(token: made.token)
        let byPin = try desk.grant(pin: pin)
        #expect(desk.authenticator.revocation(of: byToken) == nil)
        try desk.change(entry("pins = \"\(pin)\"", hash: otherHash))
        #expect(desk.changes == 1)
        #expect(desk.authenticator.revocation(of: byToken) != nil)
        #expect(desk.authenticator.revocation(of: byPin) == nil)
        try desk.change(entry("disabled = true\npins = \"\(pin)\""))
        #expect(desk.authenticator.revocation(of: byPin) == Revocation("is disabled"))
        try desk.change("# empty\n")
        #expect(desk.authenticator.revocation(of: byPin) != nil)
        #expect(desk.changes == 3)
    }

    @Test("a file with a mistake changes nothing")
    func mistakes() throws {
        let desk = try Desk(entry())
        defer { desk.close() }
        for bad in ["[[agent", "colour = 1", entry() + entry(), entry("expires = \"soon\"")] {
            try desk.change(bad)
            #expect(try desk.grant(token: made.token).identity == "web")
        }
        try FileManager.default.removeItem(atPath: desk.path)
        desk.authenticator.reload()
        #expect(try desk.grant(token: made.token).identity == "web")
        #expect(desk.changes == 0)
        #expect(throws: SettingsErrors.self) { try Desk("colour = 1") }
        #expect(throws: SettingsErrors.self) { try Desk(nil) }
    }

    @Test("an expiry and a changed file are noticed without a reload")
    func byItself() throws {
        let desk = try Desk(entry("expires = \"\(Timestamp.text(Timestamp.now + 2))\""))
        defer { desk.close() }
        let grant = try desk.grant(token: made.token)
        #expect(desk.loop.run { desk.changes == 1 })
        #expect(desk.authenticator.revocation(of: grant) == Revocation("has expired"))
        guard case .refused = try desk.login(token: made.token) else { return _ = Issue.record("expired but let in") }
        try FileAccess.replace(desk.path, with: Array(entry().utf8), durable: false)
        // The changed file is read, and the agent is no longer expired.
        #expect(desk.loop.run { desk.changes >= 2 })
        #expect(desk.authenticator.revocation(of: grant) == nil)
    }

    @Test("a reload applies what was read to report the changes, unless the file has changed since")
    func foreseen() throws {
        let desk = try Desk(entry())
        defer { desk.close() }
        let grant = try desk.grant(token: made.token)
        try FileAccess.replace(desk.path, with: Array(entry("disabled = true").utf8), durable: false)
        #expect(try desk.authenticator.pendingChanges() == ["agent 'web': disabled"])
        #expect(desk.authenticator.revocation(of: grant) == nil)
        desk.authenticator.reload()
        #expect(desk.authenticator.revocation(of: grant) == Revocation("is disabled"))
        try FileAccess.replace(desk.path, with: Array(entry("max-links = 1").utf8), durable: false)
        #expect(try desk.authenticator.pendingChanges()?.first?.contains("enabled") == true)
        try FileAccess.replace(desk.path, with: Array("# empty\n".utf8), durable: false)
        desk.authenticator.reload()
        #expect(desk.authenticator.revocation(of: grant)?.reason.hasPrefix("is no longer in") == true)
    }

    @Test("an emptied or partly written file changes nothing until it is complete")
    func unsettled() throws {
        let desk = try Desk(entry())
        defer { desk.close() }
        let grant = try desk.grant(token: made.token)
        let file = try #require(FileHandle(forUpdatingAtPath: desk.path))
        try file.truncate(atOffset: 0)
        desk.authenticator.reload()
        #expect(desk.authenticator.revocation(of: grant) == nil)
        #expect(throws: SettingsErrors.self) { try desk.authenticator.pendingChanges() }
        // The file has grown at every check, so it is not read.
        let text = entry("disabled = true")
        var written = text.utf8.startIndex
        let writer = LoopTimer(loop: desk.loop) {
            let end = text.utf8.index(written, offsetBy: 1, limitedBy: text.utf8.endIndex) ?? text.utf8.endIndex
            file.write(Data(text.utf8[written..<end]))
            written = end
        }
        writer.start(after: 1, repeating: 10)
        #expect(desk.loop.run { written == text.utf8.endIndex })
        writer.close()
        #expect(desk.changes == 0)
        #expect(desk.authenticator.revocation(of: grant) == nil)
        #expect(desk.loop.run { desk.changes > 0 })
        #expect(desk.authenticator.revocation(of: grant) == Revocation("is disabled"))
    }

    @Test("until the file exists, local agents are accepted")
    func fallback() throws {
        let desk = try Desk(nil, fallback: true)
        defer { desk.close() }
        let grant = try desk.grant()
        #expect(grant.identity.hasPrefix("instance-"))
        #expect(desk.authenticator.revocation(of: grant) == nil)
        try FileAccess.replace(desk.path, with: Array(entry().utf8), durable: false)
        #expect(desk.loop.run { desk.changes > 0 })
        #expect(desk.authenticator.revocation(of: grant) != nil)
        guard case .refused = try desk.login() else { return _ = Issue.record("let in without a token") }
    }
}
