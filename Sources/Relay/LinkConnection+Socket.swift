package import Reactor
internal import Secure
internal import Tunnel

// MARK: - From the socket of the link

extension LinkConnection: SocketStreamDelegate {
    /// A read while the handshake waits: peers send nothing then. It does not count as a read of a handshake.
    private static let waitingReadBytes = 4_096

    package func readAllowance(_ stream: SocketStream) -> Int {
        if case .waiting = self.phase { return Self.waitingReadBytes }
        if self.channel?.isEstablished != true, !self.buffers.takeHandshake(turn: self.loop.turn) {
            self.hit(.handshakeReads)
            stream.waitForNextTurn()
            return 0
        }
        return self.readBudget.allowance
    }

    package func socketStream(_ stream: SocketStream, didRead bytes: UnsafeRawBufferPointer) {
        self.heardAt = self.loop.now
        if bytes.count >= self.readBudget.allowance { self.hit(.readBudget) }
        self.received(bytes)
    }

    package func socketStreamDidReachEnd(_ stream: SocketStream) { self.close(.closedByPeer) }

    package func socketStream(_ stream: SocketStream, didWrite count: Int) {
        self.outputQueued(stream.queuedByteCount)
        guard self.isOpen else { return }
        self.link.outputProgressed(now: self.loop.now)
        guard stream.queuedByteCount == 0 else { return }
        self.link.congestion(false, now: self.loop.now)
        self.setNeedsFlush()
    }

    /// The peer's last words may still be unread. Until they are, nothing more is given to the socket.
    package func socketStream(_ stream: SocketStream, didBreak error: UVError) {
        self.link.congestion(true, now: self.loop.now)
    }

    package func socketStream(_ stream: SocketStream, didFail error: UVError) {
        if error == .timedOut { self.hit(.linkKeepAlive) }
        self.close(.failed(error))
    }

    package func socketStreamDidClose(_ stream: SocketStream) {
        self.socketClosed()
    }
}
