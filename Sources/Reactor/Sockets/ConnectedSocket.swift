internal import CUV
internal import Glibc
internal import Synchronization

/// A connected TCP socket without a loop, on its way from one loop to another. It closes itself if no loop takes it.
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
    /// Gives the socket of a stream away from which nothing was read, and closes the stream.
    ///
    /// - Throws: `tooManyFiles`, for instance; the connection is then reset.
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

    /// Takes a socket that another loop has given away.
    ///
    /// - Throws: `badDescriptor` if it was taken before.
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
