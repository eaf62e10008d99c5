import AgentCore
import Foundation
import Reactor
import Relay
import Secure
import Settings
import TestSupport
import Testing
import Wire

@testable import Agent

/// An agent, connected to a gateway that the test controls.
final class AgentFixture {
    let loop: EventLoop
    let gateway: FakeGateway
    let log = LogLines()
    let directory: String
    private(set) var agent: AgentProgram!
    private var backends: [EchoBackend] = []
    private var options = CommandOptions()
    /// The pipe to which the agent writes its events.
    private let events: Pipe
    /// The settings that the agent reads at SIGHUP; nil for the original ones.
    private var reloaded: CommandOptions?

    /// - Parameter token: the agent's token, which it reads from a file.
    init(_ names: [String], token: String? = nil, once: Bool = false) throws {
        self.loop = try EventLoop()
        self.events = Pipe()
        self.options["output"] = ["json"]
        self.gateway = try FakeGateway(loop: self.loop)
        self.directory =
            FileManager.default.temporaryDirectory.appendingPathComponent("diglett-\(UUID().uuidString)").path
        try FileManager.default.createDirectory(
            atPath: self.directory, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o700])
        self.options["gateway"] = ["127.0.0.1:\(self.gateway.listener.port)"]
        self.options["state-dir"] = ["\(self.directory)/state"]
        self.options["once"] = once ? [""] : []
        self.options["url-file"] = ["\(self.directory)/urls"]
        if let token {
            try self.write(token: token)
            self.options["token-file"] = ["\(self.directory)/token"]
        }
        self.options["expose"] = try names.map { "\($0)=\(try self.backend())" }
    }

    private func backend() throws -> UInt16 {
        let backend = try EchoBackend(loop: self.loop, echoes: .atOnce)
        self.backends.append(backend)
        return backend.listener.port
    }

    func write(token: String) throws {
        try FileAccess.replace("\(self.directory)/token", with: Array(token.utf8), durable: false)
    }

    func start() throws {
        self.agent = try AgentProgram(
            loop: self.loop, settings: try AgentSettings(self.options), logger: self.log.logger, ask: nil,
            events: PatientWriter(descriptor: self.events.fileHandleForWriting.fileDescriptor),
            reread: { [unowned self] () throws(SettingsErrors) in
                try AgentSettings(self.reloaded ?? self.options, for: .reload)
            })
        self.agent.start()
    }

    /// Reloads the settings as SIGHUP does, with other names.
    func reload(_ names: [String]) throws {
        var options = self.options
        options["expose"] = try names.map { "\($0)=\(try self.backend())" }
        self.reloaded = options
        self.agent.hungUp()
    }

    /// The bytes received by the backend of the name with this index, on its latest connection.
    func received(_ backend: Int) -> [UInt8] { self.backends[backend].connections.last?.received ?? [] }

    func connections(_ backend: Int) -> [Connection] { self.backends[backend].connections }

    /// Runs the loop for a turn.
    func turn() {
        var isOver = false
        let timer = LoopTimer(loop: self.loop) { isOver = true }
        timer.start(after: 0)
        #expect(self.wait { isOver })
        timer.close()
    }

    func wait(for condition: () -> Bool) -> Bool { self.loop.run(until: condition) }

    func hasLine(_ part: String) -> Bool { self.log.lines.contains { $0.contains(part) } }

    /// The events written so far. Call this after the agent has ended.
    func writtenEvents() -> [String] {
        try? self.events.fileHandleForWriting.close()
        return String(decoding: self.events.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
            .split(separator: "\n").map(String.init)
    }

    var urls: String? { try? String(contentsOfFile: "\(self.directory)/urls", encoding: .utf8) }

    /// Ends agent and gateway. The loop must then have nothing left to do.
    func finish(_ visitors: Connection...) {
        for visitor in visitors { visitor.stream.close() }
        self.agent.stop()
        self.agent.stop()
        self.gateway.close()
        for backend in self.backends {
            backend.forget()
            backend.listener.close()
        }
        self.loop.run()
        self.loop.close()
        try? FileManager.default.removeItem(atPath: self.directory)
    }
}

@Suite("An agent", .serialized, .timeLimit(.minutes(1)))
struct AgentProgramTests {
    private func send(_ bytes: [UInt8], by visitor: Connection) {
        _ = bytes.withUnsafeBytes { visitor.stream.write($0) }
    }

    /// Starts the agent, and connects a visitor that gets one byte echoed.
    private func visit(_ name: String, of stand: AgentFixture) throws -> Connection {
        try stand.start()
        #expect(stand.wait { stand.urls != nil })
        let visitor = try stand.gateway.visit(name, at: 0)
        self.send([1], by: visitor)
        #expect(stand.wait { visitor.received == [1] })
        return visitor
    }

    @Test("registers its names, reports their addresses, and connects each visitor to the backend of the name")
    func registers() throws {
        let stand = try AgentFixture(["one", "two"])
        try stand.start()
        #expect(stand.wait { stand.urls != nil })
        #expect(stand.gateway.names(of: 0) == ["one", "two"])
        #expect(stand.urls == "gw.test:4000\ngw.test:4000\n")
        #expect(stand.hasLine("'two' is reachable at gw.test:4000 and forwards to localhost:"))
        let visitor = try stand.gateway.visit("two", at: 0)
        self.send([1, 2, 3], by: visitor)
        #expect(stand.wait { visitor.received == [1, 2, 3] })
        #expect(stand.received(1) == [1, 2, 3] && stand.connections(0).isEmpty)
        stand.finish(visitor)
        #expect(stand.agent.exit == .stopped && stand.urls == nil)
        let events = stand.writtenEvents()
        #expect(events.count == 3 && events[0].contains("\"event\":\"connected\""), "\(events)")
        #expect(events[2].contains("\"address\":\"gw.test:4000\"") && events[2].contains("\"name\":\"two\""))
    }

    @Test("registers a name added by SIGHUP after sending as many requests as a gateway accepts at once")
    func reloadInABurst() throws {
        let stand = try AgentFixture(["one"])
        try stand.start()
        #expect(stand.wait { stand.urls != nil })
        // Each reload gives up one name and requests another.
        for number in 0..<16 {
            try stand.reload(["name-\(number)"])
            stand.turn()
        }
        try stand.reload(["last"])
        #expect(stand.wait { stand.gateway.names(of: 0).last == "last" })
        stand.finish()
    }

    @Test("retries a temporarily refused name without affecting the others")
    func refusedForNow() throws {
        let stand = try AgentFixture(["one", "two"])
        let good = stand.gateway.answer
        stand.gateway.answer = { request in
            request.name == "two"
                ? Registered(exposure: request.exposure, code: .registrarFailed, port: 0, text: "not now")
                : good(request)
        }
        try stand.start()
        #expect(stand.wait { stand.hasLine("'two' is not reachable: not now") })
        let visitor = try stand.gateway.visit("one", at: 0)
        stand.gateway.answer = good
        #expect(stand.wait { stand.hasLine("'two' is reachable") })
        #expect(stand.gateway.names(of: 0) == ["one", "two", "two"] && stand.gateway.links.count == 1)
        #expect(!visitor.hasEnded && visitor.error == nil)
        stand.finish(visitor)
    }

    @Test("finishes the streams of a draining link while the next link has the names")
    func drains() throws {
        let stand = try AgentFixture(["one"])
        let visitor = try self.visit("one", of: stand)
        stand.gateway.links[0].link.drain(text: "the test drains")
        #expect(stand.wait { stand.gateway.names(of: 1) == ["one"] })
        self.send([2], by: visitor)
        #expect(stand.wait { visitor.received == [1, 2] })
        #expect(stand.gateway.links[0].end == nil)
        visitor.stream.close()
        #expect(stand.wait { stand.gateway.links[0].end != nil })
        stand.finish()
    }

    @Test("does not dial while it waits for its last streams")
    func stopsWhileWaiting() throws {
        let stand = try AgentFixture(["one"])
        let visitor = try self.visit("one", of: stand)
        stand.gateway.leave()
        stand.gateway.links[0].link.drain(text: "the test drains")
        // Wait for a deadline that leaves enough time to stop before it. Short waits are followed by longer ones.
        #expect(stand.wait { (stand.agent.machine.nextDeadline ?? 0) > stand.loop.now + 300 })
        // The timer is set at the end of the turn.
        stand.turn()
        let deadline = try #require(stand.agent.machine.nextDeadline)
        let dials = stand.log.lines.count { $0.hasPrefix("connecting to") }
        stand.agent.stop()
        #expect(stand.wait { stand.loop.now > deadline })
        stand.turn()
        #expect(stand.log.lines.count { $0.hasPrefix("connecting to") } == dials)
        self.send([2], by: visitor)
        #expect(stand.wait { visitor.received == [1, 2] })
        stand.finish(visitor)
    }

    @Test("replaces a lost link, and resets the backends of the streams that were cut")
    func lost() throws {
        let stand = try AgentFixture(["one"])
        let visitor = try self.visit("one", of: stand)
        stand.gateway.links[0].link.close(.failed(.connectionReset))
        #expect(stand.wait { stand.gateway.names(of: 1) == ["one"] && stand.connections(0)[0].error != nil })
        #expect(stand.connections(0)[0].error == .connectionReset && !stand.connections(0)[0].hasEnded)
        #expect(stand.hasLine("lost the link to"))
        stand.finish(visitor)
    }

    @Test("logs in again as soon as the token changes after a refusal")
    func token() throws {
        let stand = try AgentFixture(["one"], token: "old")
        stand.gateway.refusal = .loginRefused
        try stand.start()
        #expect(stand.wait { stand.hasLine("waiting for a new token in") })
        #expect(stand.gateway.logins.map(\.token) == ["old"])
        stand.gateway.refusal = nil
        try stand.write(token: "new")
        #expect(stand.wait { stand.urls != nil })
        #expect(stand.gateway.logins.map(\.token) == ["old", "new"])
        stand.finish()
    }

    @Test("remembers the key of a gateway on the same machine, and exits if the key changes")
    func key() throws {
        let stand = try AgentFixture(["one"])
        try stand.start()
        #expect(stand.wait { stand.urls != nil })
        let pin = try Identity.load(stand.gateway.identity).pin.description
        let known = try String(contentsOfFile: "\(stand.directory)/state/known_gateways", encoding: .utf8)
        #expect(known.contains("127.0.0.1:\(stand.gateway.listener.port) \(pin)"))
        stand.gateway.identity = try Identity.selfSigned(commonName: "other").pem
        stand.gateway.links[0].link.close(.failed(.connectionReset))
        #expect(stand.wait { stand.agent.exit == .wrongGatewayKey })
        #expect(stand.gateway.logins.count == 1, "it has logged in at the wrong gateway")
        stand.finish()
    }

    @Test("gives up and requests names at SIGHUP, and a name that stays keeps its streams")
    func reload() throws {
        let stand = try AgentFixture(["one", "two"])
        let visitor = try self.visit("two", of: stand)
        try stand.reload(["two", "three"])
        #expect(stand.wait { stand.gateway.names(of: 0).last == "three" && !stand.gateway.withdrawn.isEmpty })
        #expect(stand.gateway.withdrawn == [0] && stand.gateway.links.count == 1)
        self.send([2], by: visitor)
        #expect(stand.wait { visitor.received == [1, 2] })
        // New streams of the name now go to another backend.
        let second = try stand.gateway.visit("two", at: 0)
        self.send([3], by: second)
        #expect(stand.wait { second.received == [3] })
        #expect(stand.received(2) == [3] && stand.connections(1).count == 1)
        stand.finish(visitor, second)
    }

    @Test("exits with --once with the code of the first failure")
    func once() throws {
        let stand = try AgentFixture(["one"], once: true)
        stand.gateway.answer = { Registered(exposure: $0.exposure, code: .nameNotAllowed, port: 0, text: "not yours") }
        try stand.start()
        #expect(stand.wait { stand.agent.exit == .nameRefused })
        #expect(stand.hasLine("the gateway refused the name 'one': not yours (diglett explain 13)"))
        stand.finish()
    }
}
