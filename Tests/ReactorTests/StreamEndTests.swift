import Glibc
import Reactor
import Testing

/// How streams end when the peer resets, and how they reset.
@Suite("Ends of streams", .serialized, .timeLimit(.minutes(1)))
struct StreamEndTests {
    /// A loopback connection whose one end is a plain blocking socket.
    private func withPlainPeer(_ body: (EventLoop, Recorder, Int32) throws -> Void) throws {
        try withLoop { loop in
            let acceptor = Acceptor()
            let listener = try SocketListener(loop: loop, address: .loopback4(port: 0))
            listener.delegate = acceptor
            let peer = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
            var address = sockaddr_in()
            address.sin_family = sa_family_t(AF_INET)
            address.sin_port = listener.port.bigEndian
            address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
            let code = withUnsafePointer(to: &address) {
                $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                    connect(peer, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
                }
            }
            try #require(code == 0)
            #expect(loop.run { !acceptor.accepted.isEmpty })
            listener.close()
            let here = acceptor.accepted[0]
            try body(loop, here, peer)
            here.stream.close()
            #expect(loop.run { here.isClosed })
            close(peer)
        }
    }

    @Test("what the peer sent before its reset is read, though a write meets the reset first")
    func answerBeforeReset() throws {
        try withPlainPeer { loop, here, peer in
            let answer = [UInt8](repeating: 5, count: 50_000)
            _ = write(here.stream, [1, 2, 3])
            // Closing with unread bytes makes the kernel send a reset behind the answer.
            #expect(send(peer, answer, answer.count, 0) == answer.count)
            close(dup2(open("/dev/null", O_RDWR), peer))
            var turns = 0
            let writer = LoopTimer(loop: loop) {
                turns += 1
                _ = write(here.stream, [4])
            }
            writer.start(after: 1, repeating: 1)
            #expect(loop.run { here.breakage != nil })
            writer.close()
            #expect(here.error == nil)
            here.stream.startReading()
            #expect(loop.run { here.error != nil })
            #expect(here.received == answer)
            #expect(!here.hasEnded, "a reset is no end in order")
        }
    }

    @Test("a reset is found in a socket that is not read, and its bytes are still there")
    func unreadSocket() throws {
        try withPair { loop, here, there in
            #expect(write(here.stream, [1, 2, 3]) == 3)
            there.stream.checkPeer()
            here.stream.resetWhenDelivered(patience: 10_000)
            #expect(loop.run { here.isClosed })
            there.stream.checkPeer()
            #expect(loop.run { there.breakage == .connectionReset })
            there.stream.startReading()
            #expect(loop.run { there.error != nil })
            #expect(there.received == [1, 2, 3])
            #expect(there.error == .connectionReset)
        }
    }

    @Test("a reset follows everything that was written, however slowly the peer reads")
    func resetWhenDelivered() throws {
        try withPair { loop, here, there in
            let bytes = (0..<8_000_000).map { UInt8(truncatingIfNeeded: $0 &* 11 &+ $0 >> 8) }
            let taken = write(here.stream, bytes)
            #expect(taken < bytes.count)
            here.stream.resetWhenDelivered(patience: 10_000)
            #expect(write(here.stream, [1]) == 0, "nothing follows a reset")
            there.allowance = 100_000
            there.stream.startReading()
            #expect(loop.run { there.error != nil })
            let isWhole = there.received == bytes
            #expect(isWhole)
            #expect(there.error == .connectionReset)
            #expect(loop.run { here.isClosed })
            #expect(here.written == bytes.count - taken)
        }
    }

    @Test("a peer that takes nothing is reset after the patience is over")
    func impatience() throws {
        try withPair { loop, here, there in
            _ = write(here.stream, [UInt8](repeating: 0, count: 8_000_000))
            let start = loop.now
            here.stream.resetWhenDelivered(patience: 200)
            #expect(loop.run { here.isClosed })
            #expect(loop.now - start >= 200)
            there.stream.startReading()
            #expect(loop.run { there.error != nil })
        }
    }

    @Test("a peer that is gone is not waited for")
    func goneWhileDelivering() throws {
        try withPair { loop, here, there in
            _ = write(here.stream, [UInt8](repeating: 0, count: 8_000_000))
            here.stream.resetWhenDelivered(patience: 3_600_000)
            there.stream.reset()
            #expect(loop.run { here.isClosed })
        }
    }

    @Test("urgent data keeps its place")
    func urgentData() throws {
        try withPlainPeer { loop, here, peer in
            let bytes: [UInt8] = [1, 2, 3, 4, 5]
            bytes.withUnsafeBytes { bytes in
                #expect(send(peer, bytes.baseAddress, 2, 0) == 2)
                #expect(send(peer, bytes.baseAddress.map { $0 + 2 }, 1, Int32(MSG_OOB)) == 1)
                #expect(send(peer, bytes.baseAddress.map { $0 + 3 }, 2, 0) == 2)
            }
            shutdown(peer, Int32(SHUT_WR))
            here.stream.startReading()
            #expect(loop.run { here.hasEnded })
            #expect(here.received == bytes)
        }
    }
}
