import Glibc
import Reactor
import Testing

/// Runs `body` with a loop. `close` traps with a census if `body` leaves a handle open.
func withLoop(_ body: (EventLoop) throws -> Void) throws {
    let loop = try EventLoop()
    defer { loop.close() }
    try body(loop)
}

/// Records what a stream delivers.
final class Recorder: SocketStreamDelegate {
    let stream: SocketStream
    var received: [UInt8] = []
    var written = 0
    var hasEnded = false
    var error: UVError?
    /// Set when writing failed. Reading continues.
    var breakage: UVError?
    var isClosed = false
    var allowance = Int.max
    var onRead: (() -> Void)?

    init(_ stream: SocketStream) {
        self.stream = stream
        stream.delegate = self
    }

    func readAllowance(_ stream: SocketStream) -> Int { self.allowance }

    func socketStream(_ stream: SocketStream, didRead bytes: UnsafeRawBufferPointer) {
        self.received += Array(bytes)
        self.onRead?()
    }

    func socketStreamDidReachEnd(_ stream: SocketStream) { self.hasEnded = true }
    func socketStream(_ stream: SocketStream, didWrite count: Int) { self.written += count }
    func socketStream(_ stream: SocketStream, didBreak error: UVError) { self.breakage = error }
    func socketStream(_ stream: SocketStream, didFail error: UVError) { self.error = error }
    func socketStreamDidClose(_ stream: SocketStream) { self.isClosed = true }
}

final class Acceptor: SocketListenerDelegate {
    var accepted: [Recorder] = []

    func listener(_ listener: SocketListener, didAccept stream: SocketStream) { self.accepted.append(Recorder(stream)) }
    func listener(_ listener: SocketListener, didFail error: UVError) {}
}

/// Runs `body` with two connected sockets.
func withPair(_ body: (EventLoop, Recorder, Recorder) throws -> Void) throws {
    try withLoop { loop in
        let acceptor = Acceptor()
        let listener = try SocketListener(loop: loop, address: .loopback4(port: 0))
        listener.delegate = acceptor
        var connected: Recorder?
        let connector = Connector.connect(
            loop: loop, to: .host("127.0.0.1", port: listener.port), timeout: 5_000
        ) { result in
            if case .success(let stream) = result { connected = Recorder(stream) }
        }
        #expect(loop.run { connected != nil && !acceptor.accepted.isEmpty })
        _ = connector
        listener.close()
        let here = try #require(connected)
        try body(loop, here, acceptor.accepted[0])
        here.stream.close()
        acceptor.accepted[0].stream.close()
        #expect(loop.run { here.isClosed && acceptor.accepted[0].isClosed })
    }
}

func write(_ stream: SocketStream, _ bytes: [UInt8]) -> Int { bytes.withUnsafeBytes { stream.write($0) } }

/// A plain socket connected to a port of this machine. Returns as soon as the connection is in the listener's
/// backlog.
func connected(to port: UInt16) throws -> CInt {
    // Close-on-exec, because a child process of another test would keep the connection open after it is closed here.
    let descriptor = socket(AF_INET, CInt(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
    try #require(descriptor >= 0)
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_port = port.bigEndian
    address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
    let code = withUnsafePointer(to: &address) {
        $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
            connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
        }
    }
    try #require(code == 0)
    return descriptor
}
