package import Reactor
internal import Secure

// MARK: - From the socket

extension LinkTransport: SocketStreamDelegate {
    /// Maximum read size while the handshake waits, when legitimate peers send nothing. Such a read does not count as a
    /// handshake read.
    private static let waitingReadBytes = 4_096

    package func readAllowance(_ stream: SocketStream) -> Int {
        switch self.phase {
        case .asking, .waiting: return Self.waitingReadBytes
        case .silent, .open, .lingering, .closing, .closed: break
        }
        if !self.isEstablished, !self.buffers.takeHandshake(turn: self.loop.turn) {
            self.hit(.handshakeReads)
            stream.waitForNextTurn()
            return 0
        }
        return self.readBudget.allowance
    }

    package func socketStream(_ stream: SocketStream, didRead bytes: UnsafeRawBufferPointer) {
        self.blackHole.heard(now: self.loop.now)
        if bytes.count >= self.readBudget.allowance { self.hit(.readBudget) }
        switch self.phase {
        case .silent(let greeting): self.greeted(greeting.received(bytes))
        case .asking(let greeting), .waiting(let greeting): self.receivedWhileWaiting(bytes, greeting)
        case .open, .lingering, .closing, .closed: self.decrypt(bytes)
        }
    }

    package func socketStreamDidReachEnd(_ stream: SocketStream) { self.close(.closedByPeer) }

    package func socketStream(_ stream: SocketStream, didWrite count: Int) {
        self.outputQueued(stream.queuedByteCount)
        if self.isOpen { self.delegate?.transportDidSend(self) }
    }

    package func socketStream(_ stream: SocketStream, didBreak error: UVError) {
        self.delegate?.transportDidBreak(self)
    }

    package func socketStream(_ stream: SocketStream, didFail error: UVError) {
        if error == .timedOut { self.hit(.linkKeepAlive) }
        self.close(.failed(error))
    }

    package func socketStreamDidClose(_ stream: SocketStream) {
        self.socketClosed()
    }
}
