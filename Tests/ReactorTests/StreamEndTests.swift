import Glibc
import Reactor
import Testing

/// How streams end when the peer resets them, and how they reset their peer.
@Suite("Stream ends", .serialized, .timeLimit(.minutes(1)))
struct StreamEndTests {
    /// Runs `body` with a loopback connection. The other end is a plain blocking socket.
    private func withPlainPeer(_ body: (EventLoop, Recorder, Int32) throws -> Void) throws {
        try withLoop { loop in
            let acceptor = Acceptor()
            let listener = try SocketListener(loop: loop, address: .loopback4(port: 0))
            listener.delegate = acceptor
            let peer = try connected(to: listener.port)
            #expect(loop.run { !acceptor.accepted.isEmpty })
            listener.close()
            let here = acceptor.accepted[0]
            try body(loop, here, peer)
            here.stream.close()
            #expect(loop.run { here.isClosed })
            close(peer)
        }
    }

    @Test("bytes sent before a reset can be read, even if a write fails first")
    func answerBeforeReset() throws {
        try withPlainPeer { loop, here, peer in
            let answer = [UInt8](repeating: 5, count: 50_000)
            _ = write(here.stream, [1, 2, 3])
            // Closing with unread bytes makes the kernel send a reset after the answer.
            #expect(send(peer, answer, answer.count, 0) == answer.count)
            self.end(peer)
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
            #expect(!here.hasEnded, "a reset is not an orderly end")
        }
    }

    @Test("a reset is detected on a socket that is not read, and its bytes can still be read")
    func unreadSocket() throws {
        try withPair { loop, here, there in
            #expect(write(here.stream, [1, 2, 3]) == 3)
            there.stream.checkPeer()
            here.stream.resetWhenDelivered(patience: 10_000)
            #expect(loop.run { here.isClosed })
            // The reset may still be on its way.
            let looking = LoopTimer(loop: loop) { there.stream.checkPeer() }
            looking.start(after: 0, repeating: 1)
            #expect(loop.run { there.breakage == .connectionReset })
            looking.close()
            there.stream.startReading()
            #expect(loop.run { there.error != nil })
            #expect(there.received == [1, 2, 3])
            #expect(there.error == .connectionReset)
        }
    }

    /// Closes a plain socket with a reset.
    private func reset(_ peer: Int32) {
        var now = linger(l_onoff: 1, l_linger: 0)
        setsockopt(peer, SOL_SOCKET, SO_LINGER, &now, socklen_t(MemoryLayout<linger>.size))
        self.end(peer)
    }

    /// Closes a plain socket, but keeps its descriptor number in use until `withPlainPeer` closes it. Otherwise
    /// another test could get the same number.
    private func end(_ peer: Int32) {
        let nothing = open("/dev/null", O_RDWR)
        #expect(dup2(nothing, peer) == peer)
        close(nothing)
    }

    @Test("a pending write of a reset stream is not reused for another stream")
    func resetDuringWrite() throws {
        try withPlainPeer { loop, here, peer in
            let acceptor = Acceptor()
            let listener = try SocketListener(loop: loop, address: .loopback4(port: 0))
            listener.delegate = acceptor
            let otherPeer = try connected(to: listener.port)
            #expect(loop.run { !acceptor.accepted.isEmpty })
            listener.close()
            let other = acceptor.accepted[0]
            // One piece more than the kernel takes is left pending in libuv.
            let bytes = [UInt8](repeating: 7, count: 16_000)
            while write(here.stream, bytes) == bytes.count {}
            self.reset(peer)
            // The reset arrives late if a process that another test is starting still has a copy of the peer's
            // socket.
            for _ in 0..<1_000 where !here.stream.isBroken {
                here.stream.checkPeer()
                usleep(1_000)
            }
            #expect(here.stream.isBroken && here.stream.queuedByteCount == 0)
            var sent = 0
            var taken = 0
            repeat {
                sent += bytes.count
                taken += write(other.stream, bytes)
            } while taken == sent
            #expect(loop.run { here.breakage != nil || here.error != nil })
            var count = 0
            var buffer = [UInt8](repeating: 0, count: 1 << 20)
            let reader = LoopTimer(loop: loop) {
                count += max(recv(otherPeer, &buffer, buffer.count, CInt(MSG_DONTWAIT)), 0)
            }
            reader.start(after: 1, repeating: 1)
            #expect(loop.run { count == sent })
            reader.close()
            #expect(other.written == sent - taken)
            other.stream.close()
            #expect(loop.run { other.isClosed })
            close(otherPeer)
        }
    }

    @Test("a reset after an orderly end is detected")
    func resetAfterEnd() throws {
        try withPlainPeer { loop, here, peer in
            here.stream.startReading()
            #expect(send(peer, [1], 1, 0) == 1)
            shutdown(peer, Int32(SHUT_WR))
            #expect(loop.run { here.hasEnded })
            here.stream.checkPeer()
            #expect(!here.stream.isBroken, "it waits for the answer")
            self.reset(peer)
            here.stream.checkPeer()
            #expect(here.stream.isBroken)
            #expect(loop.run { here.error != nil })
            #expect(here.received == [1])
        }
    }

    @Test("a reset follows all written bytes, however slowly the peer reads")
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

    @Test("a peer that reads nothing is reset when the patience is over")
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

    @Test("a peer that is already gone does not delay the reset")
    func goneWhileDelivering() throws {
        try withPair { loop, here, there in
            _ = write(here.stream, [UInt8](repeating: 0, count: 8_000_000))
            here.stream.resetWhenDelivered(patience: 3_600_000)
            there.stream.reset()
            #expect(loop.run { here.isClosed })
        }
    }

    @Test("urgent data stays in order")
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
