import Agent
import AgentCore
import Reactor
import TestSupport
import Testing

@testable import Gateway

@Suite("Gateway and agent", .serialized, .timeLimit(.minutes(2)))
struct ProgramTests {
    /// Three different payloads of each size. Create them before the programs start: the loop stands still while they
    /// are made, and with a sanitizer on a busy machine that takes longer than a backend may take to answer.
    private static func payloads(_ sizes: [Int]) -> [[UInt8]] {
        sizes.flatMap { size in
            (0..<3).map { copy in (0..<size).map { UInt8(truncatingIfNeeded: $0 &* 13 &+ copy &+ $0 >> 8) } }
        }
    }

    @Test("carry streams of many sizes to the backend and back, and leave no handle open")
    func echo() throws {
        let world = try World()
        let backend = try EchoBackend(loop: world.loop)
        _ = try world.startAgent(["example=127.0.0.1:\(backend.listener.port)"])
        let port = try world.port(of: "example")
        let payloads = Self.payloads([0, 1, 100, 16_376, 16_377, 300_000, 2_000_000])
        var visitors: [(Connection, [UInt8])] = []
        for bytes in payloads {
            let visitor = try world.visit(port)
            _ = bytes.withUnsafeBytes { visitor.stream.write($0) }
            visitor.stream.shutdownWriting()
            visitors.append((visitor, bytes))
        }
        #expect(world.loop.run { visitors.allSatisfy { $0.0.hasEnded } })
        for (visitor, bytes) in visitors {
            #expect(Bool(visitor.received == bytes), "\(visitor.received.count) bytes of \(bytes.count)")
            visitor.stream.close()
        }
        for connection in backend.connections { connection.stream.close() }
        backend.listener.close()
        world.finish()
        #expect(world.log.lines.contains("unregister domain 'example'"))
    }

    @Test("carry streams of version 1 too, reuse the port when the agent returns, and leave no handle open")
    func version1() throws {
        let world = try World()
        let backend = try EchoBackend(loop: world.loop, echoes: .atOnce)
        let first = try world.startAgent(["example=127.0.0.1:\(backend.listener.port)"], version1: true)
        let port = try world.port(of: "example")
        let payloads = Self.payloads([1, 100, 65_535, 65_536, 300_000, 700_000])
        var visitors: [(Connection, [UInt8])] = []
        for bytes in payloads {
            let visitor = try world.visit(port)
            _ = bytes.withUnsafeBytes { visitor.stream.write($0) }
            visitors.append((visitor, bytes))
        }
        #expect(world.loop.run { visitors.allSatisfy { $0.0.received.count >= $0.1.count || $0.0.error != nil } })
        for (visitor, bytes) in visitors {
            #expect(Bool(visitor.received == bytes), "\(visitor.received.count) bytes of \(bytes.count)")
            visitor.stream.shutdownWriting()
        }
        // After a moment of silence the answer counts as complete, and the backend receives the end.
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

    @Test("reset a visitor when the backend refuses the connection, and log it on both sides")
    func refused() throws {
        let world = try World()
        let backend = try SilentBackend()
        _ = try world.startAgent(["example=127.0.0.1:\(backend.port)"])
        let visitor = try world.visit(try world.port(of: "example"))
        #expect(world.loop.run { visitor.error != nil || visitor.hasEnded })
        #expect(visitor.error == .connectionReset)
        #expect(
            world.log.lines.contains { $0.contains("cannot reach the backend") && $0.contains(": connection refused") })
        #expect(world.loop.run { world.log.lines.contains { $0.contains("reset: refused") } })
        world.finish()
    }

    @Test("with probes, publish a name only when its backend answers")
    func probe() throws {
        let world = try World(configuration: "probe = true")
        let backend = try SilentBackend()
        _ = try world.startAgent(["example=127.0.0.1:\(backend.port)"])
        #expect(world.loop.run { world.log.lines.contains { $0.contains("'example' waits for its backend") } })
        #expect(!world.log.lines.contains { $0.hasPrefix("register domain") })
        backend.listen()
        _ = try world.port(of: "example")
        // The stream of the probe is closed again.
        var streams: Int?
        world.gateway.worker.census { streams = $0.streamCount }
        #expect(world.loop.run { streams != nil })
        #expect(streams == 0)
        world.finish()
    }

    @Test("move a name with its port to a second link of the agent, and end the first with its own exit code")
    func takeover() throws {
        let world = try World()
        let first = try world.startAgent(["example=127.0.0.1:9"])
        let port = try world.port(of: "example")
        let second = try world.startAgent(["example=127.0.0.1:9"])
        #expect(world.loop.run { first.exit == .replaced })
        #expect(second.exit == .stopped)
        // The listener was never closed: the port still accepts connections.
        let visitor = try world.visit(port)
        visitor.stream.close()
        world.finish()
    }

    @Test("refuse a name held by another agent, and a port outside the range")
    func refusals() throws {
        let world = try World(ports: "1-1")
        let denied = try world.startAgent(["example=127.0.0.1:9"], state: "one", once: true)
        // Without privileges port 1 cannot be bound. As root the first name gets it, and the second has no port.
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
