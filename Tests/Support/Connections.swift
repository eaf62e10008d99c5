package import Reactor

/// Echoes on each connection what it received.
package final class EchoBackend: SocketListenerDelegate {
    package let listener: SocketListener
    private let echoes: Connection.Echo
    package private(set) var connections: [Connection] = []

    package init(loop: EventLoop, echoes: Connection.Echo = .atEnd) throws {
        self.echoes = echoes
        self.listener = try SocketListener(loop: loop, address: .loopback4(port: 0))
        self.listener.delegate = self
    }

    package func listener(_ listener: SocketListener, didAccept stream: SocketStream) {
        self.connections.append(Connection(stream, echoes: self.echoes))
    }

    package func listener(_ listener: SocketListener, didFail error: UVError) {}

    /// Closes all connections accepted so far.
    package func forget() {
        for connection in self.connections { connection.stream.close() }
        self.connections = []
    }
}

package final class Connection: SocketStreamDelegate {
    package enum Echo { case never, atOnce, atEnd }

    package let stream: SocketStream
    private let echoes: Echo
    package private(set) var received: [UInt8] = []
    package private(set) var hasEnded = false
    package private(set) var error: UVError?

    package init(_ stream: SocketStream, echoes: Echo = .never) {
        self.stream = stream
        self.echoes = echoes
        stream.delegate = self
        stream.startReading()
    }

    /// Connects to a port of this machine. Returns nil if that fails.
    package static func open(_ loop: EventLoop, to port: UInt16) -> Connection? {
        var result: Result<SocketStream, UVError>?
        let connector = Connector.connect(loop: loop, to: .host("127.0.0.1", port: port), timeout: 5_000) {
            result = $0
        }
        _ = loop.run { result != nil }
        connector.cancel()
        return (try? result?.get()).map { Connection($0) }
    }

    package func readAllowance(_ stream: SocketStream) -> Int { .max }

    package func socketStream(_ stream: SocketStream, didRead bytes: UnsafeRawBufferPointer) {
        self.received += Array(bytes)
        if self.echoes == .atOnce { _ = stream.write(bytes) }
    }

    package func socketStreamDidReachEnd(_ stream: SocketStream) {
        self.hasEnded = true
        guard self.echoes != .never else { return }
        if self.echoes == .atEnd { _ = self.received.withUnsafeBytes { stream.write($0) } }
        stream.shutdownWriting()
    }

    package func socketStream(_ stream: SocketStream, didWrite count: Int) {}

    package func socketStream(_ stream: SocketStream, didFail error: UVError) {
        self.error = error
        stream.close()
    }

    package func socketStreamDidClose(_ stream: SocketStream) {}
}
