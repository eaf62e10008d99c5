internal import CUV
internal import Glibc
internal import Synchronization

/// A connected TCP socket on its way from one event loop to another. `deinit` closes it if no loop has taken it.
package final class ConnectedSocket: Sendable {
    private let descriptor: Mutex<Int32?>

    fileprivate init(_ descriptor: Int32) { self.descriptor = Mutex(descriptor) }

    deinit {
        if let descriptor = self.take() { Glibc.close(descriptor) }
    }

    fileprivate func take() -> Int32? {
        self.descriptor.withLock { descriptor in
            defer { descriptor = nil }
            return descriptor
        }
    }
}

extension SocketStream {
    /// Detaches the socket from its stream and closes the stream. Nothing may have been read from the stream.
    ///
    /// - Throws: for example `tooManyFiles`. The connection is reset then.
    package func giveAway() throws(UVError) -> ConnectedSocket {
        var descriptor: Int32 = -1
        var code: Int32 = EBADF
        self.withDescriptor {
            descriptor = fcntl($0, F_DUPFD_CLOEXEC, 0)
            code = errno
        }
        guard descriptor >= 0 else {
            self.reset()
            throw UVError(code: -code)
        }
        self.close()
        return ConnectedSocket(descriptor)
    }

    /// Creates a stream from a socket that another loop has given away.
    ///
    /// - Throws: for example EBADF if the socket was already taken.
    package static func take(_ socket: ConnectedSocket, on loop: EventLoop) throws(UVError) -> SocketStream {
        let stream = try SocketStream.tcp(loop: loop)
        guard let descriptor = socket.take() else {
            stream.close()
            throw UVError(code: -EBADF)
        }
        let code = uv_tcp_open(cuv_tcp_of_stream(stream.raw), descriptor)
        guard code == 0 else {
            Glibc.close(descriptor)
            stream.close()
            throw UVError(code: code)
        }
        return stream
    }
}
