import Bytes
import Foundation
import Reactor
import Testing

@Suite("Reactor", .serialized, .timeLimit(.minutes(1)))
struct ReactorTests {
    @Test("carries bytes and a half-close while the other direction stays open")
    func halfClose() throws {
        try withPair { loop, here, there in
            there.stream.startReading()
            here.stream.startReading()
            #expect(write(here.stream, [1, 2, 3]) == 3)
            here.stream.shutdownWriting()
            #expect(loop.run { there.hasEnded })
            #expect(there.received == [1, 2, 3])
            _ = write(there.stream, [4])
            #expect(loop.run { here.received == [4] })
            #expect(!here.hasEnded)
        }
    }

    @Test("queues bytes that the kernel does not take, in order, and reports when they are written")
    func queueing() throws {
        try withPair { loop, here, there in
            let bytes = (0..<8_000_000).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ $0 >> 9) }
            let taken = write(here.stream, bytes)
            #expect(taken < bytes.count)
            #expect(here.stream.queuedByteCount == bytes.count - taken)
            there.stream.startReading()
            here.stream.shutdownWriting()
            #expect(loop.run { there.hasEnded })
            #expect(Bool(there.received == bytes))
            #expect(here.written == bytes.count - taken)
            #expect(here.stream.queuedByteCount == 0)
        }
    }

    @Test("writes several buffers in order with one call")
    func vectored() throws {
        try withPair { loop, here, there in
            there.stream.startReading()
            let one: [UInt8] = [1, 2]
            let two: [UInt8] = [3, 4, 5]
            one.withUnsafeBytes { first in
                two.withUnsafeBytes { second in #expect(here.stream.write([first, second]) == 5) }
            }
            #expect(loop.run { there.received.count == 5 })
            #expect(there.received == [1, 2, 3, 4, 5])
        }
    }

    @Test("reads no more than its allowance, and continues when reading is started again")
    func allowance() throws {
        try withPair { loop, here, there in
            there.allowance = 10
            there.onRead = { there.allowance = 0 }
            _ = write(here.stream, [UInt8](repeating: 9, count: 100))
            there.stream.startReading()
            #expect(loop.run { there.received.count == 10 })
            there.onRead = nil
            // With an allowance of 0 no bytes arrive, although the loop runs five more turns.
            let timer = LoopTimer(loop: loop) {}
            var turns = 0
            let ticker = LoopTimer(loop: loop) { turns += 1 }
            ticker.start(after: 1, repeating: 1)
            #expect(loop.run { turns >= 5 })
            #expect(there.received.count == 10)
            there.allowance = .max
            there.stream.startReading()
            #expect(loop.run { there.received.count == 100 })
            timer.close()
            ticker.close()
        }
    }

    @Test("a reset is reported as a failure, even if unread bytes precede it")
    func reset() throws {
        try withPair { loop, here, there in
            _ = write(here.stream, [1, 2, 3])
            here.stream.reset()
            #expect(loop.run { here.isClosed })
            there.stream.startReading()
            #expect(loop.run { there.error != nil || there.hasEnded })
            #expect(there.error == .connectionReset)
            #expect(!there.hasEnded)
        }
    }

    @Test("a write to a closed peer fails at the end of the turn, not inside the call")
    func brokenPipe() throws {
        try withPair { loop, here, there in
            there.stream.reset()
            #expect(loop.run { there.isClosed })
            var turns = 0
            let ticker = LoopTimer(loop: loop) {
                turns += 1
                let before = here.breakage
                _ = write(here.stream, [1])
                #expect(here.breakage == before)
            }
            ticker.start(after: 0, repeating: 1)
            #expect(loop.run { here.breakage != nil })
            ticker.close()
            here.stream.startReading()
            #expect(loop.run { here.error != nil })
        }
    }

    @Test("closing from inside a callback is safe")
    func closeInCallback() throws {
        try withPair { loop, here, there in
            there.onRead = { there.stream.close() }
            there.stream.startReading()
            _ = write(here.stream, [1])
            #expect(loop.run { there.isClosed })
            #expect(there.received == [1])
            there.onRead = nil
        }
    }

    @Test("a paused listener leaves visitors in the backlog")
    func pausing() throws {
        try withLoop { loop in
            let acceptor = Acceptor()
            let listener = try SocketListener(loop: loop, address: .loopback4(port: 0))
            listener.delegate = acceptor
            listener.pause()
            var connected: [SocketStream] = []
            var connectors: [Connector] = []
            for _ in 0..<3 {
                connectors.append(
                    Connector.connect(
                        loop: loop, to: .host("127.0.0.1", port: listener.port), timeout: 5_000
                    ) { if case .success(let stream) = $0 { connected.append(stream) } })
            }
            #expect(loop.run { connected.count == 3 })
            #expect(acceptor.accepted.isEmpty)
            listener.resume()
            #expect(loop.run { acceptor.accepted.count == 3 })
            for stream in connected { stream.close() }
            for recorder in acceptor.accepted { recorder.stream.close() }
            listener.close()
        }
    }

    @Test("closing a paused listener resets its waiting visitors")
    func closingWhilePaused() throws {
        try withLoop { loop in
            let acceptor = Acceptor()
            let listener = try SocketListener(loop: loop, address: .loopback4(port: 0))
            listener.delegate = acceptor
            listener.pause()
            var visitor: Recorder?
            let connector = Connector.connect(
                loop: loop, to: .host("127.0.0.1", port: listener.port), timeout: 5_000
            ) { if case .success(let stream) = $0 { visitor = Recorder(stream) } }
            #expect(loop.run { visitor != nil })
            var turns = 0
            let ticker = LoopTimer(loop: loop) { turns += 1 }
            ticker.start(after: 1, repeating: 1)
            // The listener needs a turn to take the connection from the kernel.
            #expect(loop.run { turns >= 3 })
            visitor?.stream.startReading()
            listener.close()
            #expect(loop.run { visitor?.error != nil || visitor?.hasEnded ?? false })
            #expect(visitor?.error == .connectionReset)
            #expect(acceptor.accepted.isEmpty)
            visitor?.stream.close()
            ticker.close()
            _ = connector
        }
    }

    @Test("an orderly end is still reported as such if a reset follows")
    func resetBehindEnd() throws {
        try withPair { loop, here, there in
            _ = write(here.stream, [1, 2, 3])
            here.stream.shutdownWriting()
            var turns = 0
            let ticker = LoopTimer(loop: loop) { turns += 1 }
            ticker.start(after: 1, repeating: 1)
            #expect(loop.run { turns >= 5 })
            here.stream.reset()
            #expect(loop.run { here.isClosed && turns >= 10 })
            there.stream.checkPeer()
            there.stream.startReading()
            #expect(loop.run { there.hasEnded || there.error != nil })
            #expect(there.received == [1, 2, 3])
            #expect(there.error == nil)
            ticker.close()
        }
    }

    @Test("a port in use, a refused connection and a missing socket file have their own error codes")
    func errors() throws {
        try withLoop { loop in
            let listener = try SocketListener(loop: loop, address: .loopback4(port: 0))
            let port = listener.port
            #expect(throws: UVError.addressInUse) { try SocketListener(loop: loop, address: .loopback4(port: port)) }
            listener.close()
            _ = loop.run { loop.census().isEmpty }
            var results: [UVError] = []
            let completion: (Result<SocketStream, UVError>) -> Void = { result in
                if case .failure(let error) = result { results.append(error) }
            }
            let one = Connector.connect(
                loop: loop, to: .host("127.0.0.1", port: port), timeout: 5_000, completion: completion)
            #expect(loop.run { results.count == 1 })
            let two = Connector.connect(
                loop: loop, to: .unix(path: "/nonexistent/socket"), timeout: 5_000, completion: completion)
            #expect(loop.run { results.count == 2 })
            #expect(results == [.connectionRefused, .noSuchFile])
            _ = (one, two)
        }
    }

    @Test("a cancelled connection that is already established is reset if the plan requires it")
    func abandoned() throws {
        try withLoop { loop in
            let listener = try ListenerSocket(address: .loopback4(port: 0))
            let descriptor = try #require(listener.descriptor)
            #expect(fcntl(descriptor, F_SETFL, O_NONBLOCK) == 0)
            var plan = Connector.Plan()
            plan.resetsAbandoned = true
            var isTold = false
            let connector = Connector.connect(
                loop: loop, to: .host("127.0.0.1", port: try #require(listener.address).port), plan: plan,
                timeout: 5_000
            ) { _ in isTold = true }
            // The kernel establishes the connection in the turn that calls connect(2). The loop reports it in the
            // next turn.
            var peer: Int32 = -1
            let isAccepted = loop.run {
                peer = accept(descriptor, nil, nil)
                return peer >= 0
            }
            #expect(isAccepted && !isTold)
            connector.cancel()
            #expect(loop.run { loop.census()["tcp"] == nil })
            var byte: UInt8 = 0
            #expect(recv(peer, &byte, 1, 0) == -1 && errno == ECONNRESET)
            close(peer)
            listener.close()
        }
    }

    @Test("a connector tries the other family at once after a refusal, and can be cancelled")
    func families() throws {
        try withLoop { loop in
            let acceptor = Acceptor()
            // Listens on IPv4 only, while the first address of localhost is ::1.
            let listener = try SocketListener(loop: loop, address: .loopback4(port: 0))
            listener.delegate = acceptor
            var stream: SocketStream?
            let connector = Connector.connect(
                loop: loop, to: .host("localhost", port: listener.port), timeout: 5_000
            ) { if case .success(let made) = $0 { stream = made } }
            #expect(loop.run { stream != nil })
            var wasCalled = false
            let cancelled = Connector.connect(
                loop: loop, to: .host("localhost", port: listener.port), timeout: 5_000
            ) { _ in wasCalled = true }
            cancelled.cancel()
            stream?.close()
            for recorder in acceptor.accepted { recorder.stream.close() }
            listener.close()
            loop.run()
            #expect(!wasCalled)
            _ = connector
        }
    }

    @Test("address families alternate, starting with the family of the first address")
    func alternation() throws {
        let four = [SocketAddress.loopback4(port: 1), .loopback4(port: 2), .loopback4(port: 3)]
        let six = [SocketAddress.loopback6(port: 1)]
        #expect(Resolver.alternating(six + four) == [six[0], four[0], four[1], four[2]])
        #expect(Resolver.alternating(four + six) == [four[0], six[0], four[1], four[2]])
        #expect(Resolver.alternating([]) == [])
    }

    @Test(
        "addresses are parsed, printed and recognized as loopback",
        arguments: zip(
            ["127.0.0.1", "127.9.9.9", "::1", "192.0.2.1", "2001:db8::1", "0.0.0.0"],
            [true, true, true, false, false, false]))
    func addresses(_ text: String, _ isLoopback: Bool) throws {
        let address = try #require(SocketAddress(text, port: 80))
        #expect(address.host == text)
        #expect(address.isLoopback == isLoopback)
        #expect(SocketAddress(address.host, port: 80) == address)
        #expect(SocketAddress("example.com", port: 1) == nil)
    }

    @Test("an IPv4-mapped address is treated as its IPv4 address")
    func mapped() throws {
        for host in ["127.0.0.1", "192.0.2.1"] {
            let (four, mapped) = (SocketAddress(host, port: 80), SocketAddress("::ffff:\(host)", port: 80))
            #expect(mapped == four && mapped?.host == host && mapped?.family == .ip4)
            #expect(mapped?.source == four?.source && mapped?.isLoopback == four?.isLoopback)
        }
    }
}
