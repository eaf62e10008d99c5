internal import Reactor
internal import Secure

/// Connections to the agent port that were refused before their handshake. Each gets a TLS alert with the reason.
///
/// Closing a socket with unread bytes resets the connection, and the peer may then lose the alert. Received bytes are
/// therefore read and dropped until the peer closes, or for ``ticks`` seconds.
final class RefusedAgents {
    /// Calls of ``tick()`` before a connection is closed, which is after one to two seconds.
    static let ticks = 2

    /// Connections at once. Further ones are reset.
    private let maxCount: Int
    private var streams: [ObjectIdentifier: (stream: SocketStream, ticksLeft: Int)] = [:]

    init(atMost: Int) { self.maxCount = atMost }

    /// Refuses a connection before its handshake. Version 1 has no alerts: the connection is reset.
    func refuse(_ stream: SocketStream, _ alert: TLSAlert, isVersion1: Bool) {
        if isVersion1 { stream.reset() } else { self.tell(stream, alert) }
    }

    private func tell(_ stream: SocketStream, _ alert: TLSAlert) {
        guard self.streams.count < self.maxCount else { return stream.reset() }
        self.streams[ObjectIdentifier(stream)] = (stream, Self.ticks)
        stream.delegate = self
        stream.startReading()
        alert.record.withUnsafeBytes { _ = stream.write($0) }
        stream.shutdownWriting()
    }

    /// Call once a second.
    func tick() {
        for (key, entry) in self.streams {
            if entry.ticksLeft > 1 {
                self.streams[key]?.ticksLeft -= 1
            } else {
                self.close(entry.stream)
            }
        }
    }

    func close() {
        for entry in self.streams.values { self.close(entry.stream) }
    }

    private func close(_ stream: SocketStream) {
        self.streams[ObjectIdentifier(stream)] = nil
        stream.close()
    }
}

extension RefusedAgents: SocketStreamDelegate {
    func readAllowance(_ stream: SocketStream) -> Int { 4_096 }
    func socketStream(_ stream: SocketStream, didRead bytes: UnsafeRawBufferPointer) {}
    func socketStreamDidReachEnd(_ stream: SocketStream) { self.close(stream) }
    func socketStream(_ stream: SocketStream, didWrite count: Int) {}
    func socketStream(_ stream: SocketStream, didFail error: UVError) { self.close(stream) }
    func socketStreamDidClose(_ stream: SocketStream) {}
}
