import Agent
import AgentCore
import Foundation
import Gateway
import Logging
import Reactor
import Settings
import Testing
import Wire

/// Gateway, agent, backend and visitor on one loop of one process: what the sanitizers can see whole.
private final class World {
    let loop: EventLoop
    let directory: String
    let gateway: GatewayServer
    let log: LogLines
    private(set) var agents: [AgentProgram] = []

    init(ports: String? = nil, configuration: String? = nil) throws {
        self.loop = try EventLoop()
        self.directory =
            FileManager.default.temporaryDirectory.appendingPathComponent("diglett-\(UUID().uuidString)").path
        self.log = LogLines()
        var options = GatewayOptions()
        options.listen = ["127.0.0.1:0"]
        options.listenVersion1 = ["127.0.0.1:0"]
        options.stateDirectory = "\(self.directory)/gateway"
        options.exposePorts = ports
        if let configuration {
            try FileManager.default.createDirectory(atPath: self.directory, withIntermediateDirectories: true)
            options.configuration = "\(self.directory)/server.toml"
            try configuration.write(toFile: "\(self.directory)/server.toml", atomically: true, encoding: .utf8)
        }
        self.gateway = try GatewayServer(
            loop: self.loop, settings: try GatewaySettings(options), logger: self.log.logger)
        try self.gateway.start()
    }

    func startAgent(_ names: [String], state: String = "agent", once: Bool = false, version1: Bool = false) throws
        -> AgentProgram
    {
        var options = AgentOptions()
        let doors = version1 ? self.gateway.version1Addresses : self.gateway.agentAddresses
        options.gateway = try #require(doors.first).description
        options.version1 = version1
        options.names = names
        options.stateDirectory = "\(self.directory)/\(state)"
        options.once = once
        options.output = "json"
        let agent = try AgentProgram(
            loop: self.loop, settings: try AgentSettings(options), logger: self.log.logger, ask: nil)
        self.agents.append(agent)
        agent.start()
        return agent
    }

    /// Waits until the gateway has logged a registration, and returns the port.
    func port(of name: String, registration: Int = 1) throws -> UInt16 {
        let prefix = "register domain '\(name)' -> '"
        #expect(self.loop.run { self.log.lines.filter { $0.hasPrefix(prefix) }.count >= registration })
        let line = try #require(self.log.lines.last { $0.hasPrefix(prefix) })
        return try #require(UInt16(line.dropFirst(prefix.count).dropLast()))
    }

    /// Ends both programs; the loop must then have nothing left to do.
    func finish() {
        for agent in self.agents { agent.stop() }
        self.gateway.stop()
        self.loop.run()
        self.loop.close()
        try? FileManager.default.removeItem(atPath: self.directory)
    }
}

/// A logger that keeps its lines.
private final class LogLines {
    private final class Store: @unchecked Sendable {
        // Everything of a world happens on the thread of its loop.
        var lines: [String] = []
    }

    private struct Handler: LogHandler {
        let store: Store
        var logLevel = Logger.Level.debug
        var metadata: Logger.Metadata = [:]

        subscript(metadataKey key: String) -> Logger.Metadata.Value? {
            get { self.metadata[key] }
            set { self.metadata[key] = newValue }
        }

        func log(event: LogEvent) { self.store.lines.append("\(event.message)") }
    }

    private let store = Store()
    let logger: Logger

    init() {
        let store = self.store
        self.logger = Logger(label: "test", factory: { _ in Handler(store: store) })
    }

    var lines: [String] { self.store.lines }
}

/// Answers each connection with what it got.
private final class EchoBackend: TCPListenerDelegate {
    let listener: TCPListener
    let echoes: Connection.Echo
    var connections: [Connection] = []

    init(loop: EventLoop, echoes: Connection.Echo = .atEnd) throws {
        self.echoes = echoes
        self.listener = try TCPListener(loop: loop, address: .loopback4(port: 0))
        self.listener.delegate = self
    }

    func listener(_ listener: TCPListener, didAccept stream: SocketStream) {
        self.connections.append(Connection(stream, echoes: self.echoes))
    }

    func listener(_ listener: TCPListener, didFail error: UVError) {}
}

private final class Connection: SocketStreamDelegate {
    enum Echo { case never, atOnce, atEnd }

    let stream: SocketStream
    private let echoes: Echo
    var received: [UInt8] = []
    var hasEnded = false
    var error: UVError?

    init(_ stream: SocketStream, echoes: Echo = .never) {
        self.stream = stream
        self.echoes = echoes
        stream.delegate = self
        stream.startReading()
    }

    func readAllowance(_ stream: SocketStream) -> Int { .max }

    func socketStream(_ stream: SocketStream, didRead bytes: UnsafeRawBufferPointer) {
        self.received += Array(bytes)
        if self.echoes == .atOnce { _ = stream.write(bytes) }
    }

    func socketStreamDidReachEnd(_ stream: SocketStream) {
        self.hasEnded = true
        guard self.echoes != .never else { return }
        if self.echoes == .atEnd { _ = self.received.withUnsafeBytes { stream.write($0) } }
        stream.shutdownWriting()
    }

    func socketStream(_ stream: SocketStream, didWrite count: Int) {}

    func socketStream(_ stream: SocketStream, didFail error: UVError) {
        self.error = error
        stream.close()
    }

    func socketStreamDidClose(_ stream: SocketStream) {}
}

extension World {
    func visit(_ port: UInt16) throws -> Connection {
        var made: Connection?
        let connector = Connector.connect(loop: self.loop, to: .host("127.0.0.1", port: port), timeout: 5_000) {
            if case .success(let stream) = $0 { made = Connection(stream) }
        }
        #expect(self.loop.run { made != nil })
        _ = connector
        return try #require(made)
    }
}

@Suite("Gateway and agent", .serialized, .timeLimit(.minutes(2)))
struct ProgramTests {
    @Test("carry many streams of many sizes to the backend and back, and end without a handle left")
    func echo() throws {
        let world = try World()
        let backend = try EchoBackend(loop: world.loop)
        _ = try world.startAgent(["example=127.0.0.1:\(backend.listener.address.port)"])
        let port = try world.port(of: "example")
        var visitors: [(Connection, [UInt8])] = []
        for size in [0, 1, 100, 16_376, 16_377, 300_000, 2_000_000] {
            for copy in 0..<3 {
                let visitor = try world.visit(port)
                let bytes = (0..<size).map { UInt8(truncatingIfNeeded: $0 &* 13 &+ copy &+ $0 >> 8) }
                _ = bytes.withUnsafeBytes { visitor.stream.write($0) }
                visitor.stream.shutdownWriting()
                visitors.append((visitor, bytes))
            }
        }
        #expect(world.loop.run { visitors.allSatisfy { $0.0.hasEnded } })
        for (visitor, bytes) in visitors {
            #expect(visitor.received == bytes)
            visitor.stream.close()
        }
        for connection in backend.connections { connection.stream.close() }
        backend.listener.close()
        world.finish()
        #expect(world.log.lines.contains("unregister domain 'example'"))
    }

    @Test("carry streams of version 1 too, on the same port after the agent's return, and end without a handle left")
    func version1() throws {
        let world = try World()
        let backend = try EchoBackend(loop: world.loop, echoes: .atOnce)
        let first = try world.startAgent(["example=127.0.0.1:\(backend.listener.address.port)"], version1: true)
        let port = try world.port(of: "example")
        var visitors: [(Connection, [UInt8])] = []
        for size in [1, 100, 65_535, 65_536, 300_000, 700_000] {
            for copy in 0..<3 {
                let visitor = try world.visit(port)
                let bytes = (0..<size).map { UInt8(truncatingIfNeeded: $0 &* 13 &+ copy &+ $0 >> 8) }
                _ = bytes.withUnsafeBytes { visitor.stream.write($0) }
                visitors.append((visitor, bytes))
            }
        }
        #expect(world.loop.run { visitors.allSatisfy { $0.0.received.count >= $0.1.count || $0.0.error != nil } })
        for (visitor, bytes) in visitors {
            #expect(visitor.received == bytes)
            visitor.stream.shutdownWriting()
        }
        // The answer is taken for complete after a moment of silence, and the backend hears of the end.
        #expect(world.loop.run { visitors.allSatisfy { $0.0.hasEnded } && backend.connections.allSatisfy(\.hasEnded) })
        for (visitor, _) in visitors { visitor.stream.close() }
        for connection in backend.connections { connection.stream.close() }
        backend.listener.close()
        first.stop()
        #expect(world.loop.run { world.log.lines.contains("unregister domain 'example'") })
        _ = try world.startAgent(["example=127.0.0.1:9"], version1: true)
        #expect(try world.port(of: "example", registration: 2) == port)
        world.finish()
    }

    @Test("give a visitor a reset when the backend refuses, and say so on both sides")
    func refused() throws {
        let world = try World()
        let gone = try TCPListener(loop: world.loop, address: .loopback4(port: 0))
        let port = gone.address.port
        gone.close()
        _ = try world.startAgent(["example=127.0.0.1:\(port)"])
        let visitor = try world.visit(try world.port(of: "example"))
        #expect(world.loop.run { visitor.error != nil || visitor.hasEnded })
        #expect(visitor.error == .connectionReset)
        #expect(world.log.lines.contains { $0.contains("cannot be reached: connection refused") })
        #expect(world.loop.run { world.log.lines.contains { $0.contains("reset: refused") } })
        world.finish()
    }

    @Test("publish a name only when its backend answers, where that is asked for")
    func probe() throws {
        let world = try World(configuration: "probe = true")
        let gone = try TCPListener(loop: world.loop, address: .loopback4(port: 0))
        let address = gone.address
        gone.close()
        _ = try world.startAgent(["example=\(address)"])
        #expect(world.loop.run { world.log.lines.contains { $0.contains("'example' waits for its backend") } })
        #expect(!world.log.lines.contains { $0.hasPrefix("register domain") })
        let backend = try TCPListener(loop: world.loop, address: address)
        _ = try world.port(of: "example")
        // The probe's connection is taken back.
        let visitors = world.gateway.streamCount
        #expect(world.loop.run { world.gateway.streamCount == 0 }, "\(visitors)")
        backend.close()
        world.finish()
    }

    @Test("move a name with its port to a second link of the same agent, and end the first with its own code")
    func takeover() throws {
        let world = try World()
        let first = try world.startAgent(["example=127.0.0.1:9"])
        let port = try world.port(of: "example")
        let second = try world.startAgent(["example=127.0.0.1:9"])
        #expect(world.loop.run { first.exit == .replaced })
        #expect(second.exit == .stopped)
        // The listener was never closed: the port still answers.
        let visitor = try world.visit(port)
        visitor.stream.close()
        world.finish()
    }

    @Test("refuse a name that another agent holds, and a port outside the range")
    func refusals() throws {
        let world = try World(ports: "1-1")
        let denied = try world.startAgent(["example=127.0.0.1:9"], state: "one", once: true)
        // Port 1 cannot be had without rights, or is had as root; either way a second name finds none.
        let other = try world.startAgent(["second=127.0.0.1:9"], state: "two", once: true)
        #expect(world.loop.run { [denied.exit, other.exit].contains(.portRefused) })
        world.finish()
        let open = try World()
        _ = try open.startAgent(["example=127.0.0.1:9"], state: "one")
        _ = try open.port(of: "example")
        let stranger = try open.startAgent(["example=127.0.0.1:9"], state: "two")
        #expect(open.loop.run { stranger.exit == .nameTaken })
        open.finish()
    }
}
