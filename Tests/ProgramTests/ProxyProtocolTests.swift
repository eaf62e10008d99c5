import Agent
import AgentCore
import ProxyProtocol
import Reactor
import TestSupport
import Testing
import Wire

private func address(_ host: String, _ port: UInt16) throws -> WireAddress {
    try #require(WireAddress(host: Array(host.utf8), port: port))
}

/// The header that a proxy sends for a visitor from `source`.
private func header(_ source: String, _ port: UInt16, to destination: String) throws -> ProxyHeader {
    ProxyHeader(source: try address(source, port), destination: try address(destination, 443))
}

private func write(_ connection: Connection, _ bytes: [UInt8]) {
    _ = bytes.withUnsafeBytes { connection.stream.write($0) }
}

private func isReset(_ connection: Connection) -> Bool { connection.error != nil || connection.hasEnded }

/// A gateway that trusts proxies, and an agent that sends its backend a PROXY header with the visitor's address.
private final class Chain {
    let world: World
    let backend: EchoBackend
    let agent: AgentProgram
    let port: UInt16

    init(proxies: [String] = ["127.0.0.0/8"], _ version: ProxyVersion = .v1) throws {
        self.world = try World(proxies: proxies)
        self.backend = try EchoBackend(loop: self.world.loop, echoes: .never)
        self.agent = try self.world.startAgent(
            ["example=127.0.0.1:\(self.backend.listener.port)"], proxyProtocol: version)
        self.port = try self.world.port(of: "example")
    }

    /// The bytes that the backend received from each visitor, once they are `count` in all.
    func received(_ count: Int) -> [[UInt8]] {
        #expect(self.world.loop.run { self.backend.connections.reduce(0) { $0 + $1.received.count } >= count })
        return self.backend.connections.map(\.received)
    }

    func waitForLog(_ text: String) {
        #expect(self.world.loop.run { self.world.log.lines.contains { $0.contains(text) } }, "\(text)")
    }

    func finish(_ visitors: Connection...) {
        for visitor in visitors { visitor.stream.close() }
        for connection in self.backend.connections { connection.stream.close() }
        self.backend.listener.close()
        self.world.finish()
    }
}

@Suite("PROXY protocol", .serialized, .timeLimit(.minutes(1)))
struct ProxyProtocolTests {
    @Test(
        "the backend gets the visitor's address before the visitor sends a byte", arguments: ProxyVersion.allCases)
    func toBackend(_ version: ProxyVersion) throws {
        let chain = try Chain(proxies: [], version)
        let visitor = try chain.world.visit(chain.port)
        let source = try #require(visitor.stream.localAddress)
        let expected = try ProxyHeader(
            source: address("127.0.0.1", source.port), destination: address("127.0.0.1", chain.port)
        ).encoded(version)
        #expect(chain.received(expected.count) == [expected])
        write(visitor, Array("hello".utf8))
        #expect(chain.received(expected.count + 5) == [expected + Array("hello".utf8)])
        // The header does not count as the visitor's bytes, and uses none of the window.
        let bytes = [UInt8](repeating: 7, count: 1_000_000)
        write(visitor, bytes)
        #expect(Bool(chain.received(expected.count + 5 + bytes.count)[0].suffix(bytes.count) == bytes[...]))
        chain.finish(visitor)
    }

    @Test(
        "a trusted proxy's header is used, wherever it is cut, and the bytes after it are the visitor's",
        arguments: ProxyVersion.allCases)
    func fromProxy(_ version: ProxyVersion) throws {
        let chain = try Chain()
        let tail = Array("GET / HTTP/1.1\r\n\r\n".utf8)
        for (round, pair) in [("198.51.100.7", "203.0.113.1"), ("2001:db8::7", "2001:db8::1")].enumerated() {
            let expected = try header(pair.0, 1_234, to: pair.1)
            let bytes = expected.encoded(version) + tail
            // All at once; the header alone; with the tail cut; byte by byte.
            let cuts = [[], [bytes.count - tail.count], [bytes.count - 1], Array(1..<bytes.count)]
            for (number, cuts) in cuts.enumerated() {
                let visitor = try chain.world.visit(chain.port)
                var start = 0
                for end in cuts + [bytes.count] {
                    write(visitor, Array(bytes[start..<end]))
                    chain.world.turn()
                    start = end
                }
                let wanted = expected.encoded(.v1) + tail
                #expect(
                    chain.world.loop.run { chain.backend.connections.contains { $0.received == wanted } },
                    "\(round) \(number)")
                chain.backend.forget()
                visitor.stream.close()
            }
        }
        chain.finish()
    }

    @Test("with LOCAL and UNKNOWN the proxy itself is the visitor", arguments: ProxyVersion.allCases)
    func local(_ version: ProxyVersion) throws {
        let chain = try Chain()
        let visitor = try chain.world.visit(chain.port)
        let source = try #require(visitor.stream.localAddress)
        write(visitor, ProxyHeader.local.encoded(version) + [1, 2, 3])
        let expected = "PROXY TCP4 127.0.0.1 127.0.0.1 \(source.port) \(chain.port)\r\n"
        #expect(chain.received(expected.utf8.count + 3) == [Array(expected.utf8) + [1, 2, 3]])
        chain.finish(visitor)
    }

    @Test("an IPv4-mapped address is treated as its IPv4 address")
    func mapped() throws {
        let chain = try Chain()
        let visitor = try chain.world.visit(chain.port)
        write(visitor, Array("PROXY TCP6 ::ffff:192.0.2.1 ::ffff:192.0.2.2 1 2\r\nx".utf8))
        #expect(chain.received(37) == [Array("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nx".utf8)])
        visitor.stream.close()
        chain.backend.forget()
        chain.waitForLog("visitor 192.0.2.1:1 of 'example'")
        chain.finish()
    }

    @Test("a header from an untrusted source is passed on as the visitor's bytes")
    func untrusted() throws {
        let chain = try Chain(proxies: ["127.0.0.2", "10.0.0.0/8", "::1"])
        let visitor = try chain.world.visit(chain.port)
        let source = try #require(visitor.stream.localAddress)
        let words = Array("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n".utf8)
        write(visitor, words)
        let expected = Array("PROXY TCP4 127.0.0.1 127.0.0.1 \(source.port) \(chain.port)\r\n".utf8) + words
        #expect(chain.received(expected.count) == [expected])
        chain.finish(visitor)
    }

    @Test("a connection without a valid header is reset, logged with address and reason, and frees its slot")
    func refused() throws {
        let chain = try Chain()
        for (bytes, reason) in [
            (Array("GET / HTTP/1.1\r\n".utf8), "no PROXY header at the beginning"),
            (Array("PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n".utf8), "a port of the PROXY line is not valid"),
        ] {
            let visitor = try chain.world.visit(chain.port)
            let source = try #require(visitor.stream.localAddress)
            write(visitor, bytes)
            #expect(chain.world.loop.run { isReset(visitor) })
            #expect(visitor.error == .connectionReset)
            chain.waitForLog("visitor \(source) of 'example' refused: \(reason)")
        }
        let leaving = try chain.world.visit(chain.port)
        write(leaving, Array("PROXY TCP4 ".utf8))
        leaving.stream.shutdownWriting()
        #expect(chain.world.loop.run { isReset(leaving) })
        chain.waitForLog("refused: it closed without a PROXY header")
        let silent = try chain.world.visit(chain.port)
        let slow = try chain.world.visit(chain.port)
        write(slow, Array("PROXY TCP4 1.2".utf8))
        let began = chain.world.loop.now
        #expect(chain.world.loop.run { isReset(silent) && isReset(slow) })
        #expect((4_900...8_000).contains(chain.world.loop.now - began))
        #expect(chain.world.log.lines.count { $0.contains("refused: no PROXY header within 5 s") } == 2)
        #expect(chain.backend.connections.isEmpty)
        chain.finish()
    }

    @Test("visitors above the agent's limit wait for their turn, and lose no bytes")
    func crowd() throws {
        let chain = try Chain()
        var visitors: [Connection] = []
        for _ in 0..<400 { visitors.append(try chain.world.visit(chain.port)) }
        var expected: Set<[UInt8]> = []
        // No turn in between: the gateway reads more headers than it may open streams before the agent answers.
        for (index, visitor) in visitors.enumerated() {
            let bytes = try header("192.0.2.\(index % 250)", UInt16(index), to: "192.0.2.1").encoded(.v1) + [1, 2, 3]
            expected.insert(bytes)
            write(visitor, bytes)
        }
        #expect(
            chain.world.loop.run {
                chain.backend.connections.count { $0.received.suffix(3) == [1, 2, 3] } == visitors.count
                    || visitors.contains(where: isReset)
            })
        #expect(Set(chain.backend.connections.map(\.received)) == expected)
        for visitor in visitors { visitor.stream.close() }
        chain.finish()
    }

    @Test("connections that wait for a header stay when the name moves, and end with the name")
    func moves() throws {
        let chain = try Chain()
        let visitor = try chain.world.visit(chain.port)
        let silent = try chain.world.visit(chain.port)
        write(visitor, Array("PROXY TC".utf8))
        let next = try chain.world.startAgent(
            ["example=127.0.0.1:\(chain.backend.listener.port)"], proxyProtocol: .v1)
        #expect(chain.world.loop.run { chain.agent.exit == .replaced })
        write(visitor, Array("P4 192.0.2.1 192.0.2.2 1 2\r\nx".utf8))
        #expect(chain.received(37) == [Array("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nx".utf8)])
        next.stop()
        #expect(chain.world.loop.run { isReset(silent) })
        #expect(silent.error == .connectionReset)
        chain.finish(visitor)
    }

    @Test("a gateway that stops resets connections that wait for a header")
    func stops() throws {
        let chain = try Chain()
        var visitors: [Connection] = []
        for _ in 0..<5 { visitors.append(try chain.world.visit(chain.port)) }
        for (index, visitor) in visitors.enumerated() { write(visitor, Array("PROXY ".utf8.prefix(index))) }
        chain.backend.listener.close()
        chain.world.finish()
        #expect(visitors.allSatisfy { $0.error == .connectionReset })
    }
}
