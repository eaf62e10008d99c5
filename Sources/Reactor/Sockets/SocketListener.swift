internal import CUV
internal import Glibc

/// Receives the events of a ``SocketListener``.
package protocol SocketListenerDelegate: AnyObject {
    /// A connection was accepted. The delegate owns the stream: set the stream's delegate, or close it.
    func listener(_ listener: SocketListener, didAccept stream: SocketStream)
    /// A connection could not be accepted, for example because no descriptor is left or the peer is gone. The listener
    /// keeps running, unless another thread has shut down its socket (`invalidArgument`).
    func listener(_ listener: SocketListener, didFail error: UVError)
}

/// A listening socket, TCP or unix.
package final class SocketListener: LoopHandle {
    /// The address or path of a listener.
    package enum Place: Hashable, Sendable, CustomStringConvertible {
        case tcp(SocketAddress)
        case unix(path: String)

        package var description: String {
            switch self {
            case .tcp(let address): address.description
            case .unix(let path): "unix:\(path)"
            }
        }
    }

    /// The permissions of a unix socket. Connecting requires write permission (unix(7)).
    package struct Access: Sendable {
        package let mode: UInt32
        /// The group ID; nil for the process's own group.
        package let group: UInt32?

        package init(mode: UInt32, group: UInt32?) {
            self.mode = mode
            self.group = group
        }
    }

    /// Maximum number of connections accepted per turn of the loop. Each costs tens of microseconds until its first
    /// read. The others wait in the backlog, so that existing connections are served too.
    package static let maxPerTurn = 16

    private var raw: UnsafeMutablePointer<uv_stream_t> { self.memory.assumingMemoryBound(to: uv_stream_t.self) }
    private let isTCP: Bool
    private var isPaused = false
    private var accepted: (turn: UInt64, count: Int) = (0, 0)
    /// Whether `close()` removes the file of a unix socket.
    private var ownsFile = false
    private var socket: ListenerSocket?
    /// Whether libuv holds an accepted connection. It accepts no further ones until we take it.
    private var holdsConnection = false
    /// Strong reference, released in the close callback.
    package var delegate: (any SocketListenerDelegate)?
    package let place: Place

    /// Binds and listens, see ``ListenerSocket/init(address:takesBothFamilies:)``.
    package convenience init(
        loop: EventLoop, address: SocketAddress, takesBothFamilies: Bool = false
    ) throws(UVError) {
        try self.init(
            loop: loop, adopting: try ListenerSocket(address: address, takesBothFamilies: takesBothFamilies))
    }

    /// Creates a unix socket and listens. Fails if the file already exists; `close()` removes it.
    package convenience init(loop: EventLoop, path: String, access: Access) throws(UVError) {
        try self.init(loop: loop, adopting: try ListenerSocket(path: path, access: access), ownsFile: true)
    }

    /// Takes over a socket that is already listening.
    ///
    /// - Parameters:
    ///   - socket: closed with the listener, and also if this throws.
    ///   - ownsFile: whether `close()` removes the file of a unix socket.
    package convenience init(
        loop: EventLoop, adopting socket: ListenerSocket, ownsFile: Bool = false
    ) throws(UVError) {
        do throws(UVError) {
            guard !socket.isShut, let descriptor = socket.descriptor else { throw .invalidArgument }
            try self.init(loop: loop, socket, descriptor, ownsFile: ownsFile)
        } catch {
            if ownsFile { socket.shutDown() }
            socket.close()
            throw error
        }
    }

    private convenience init(
        loop: EventLoop, _ socket: ListenerSocket, _ descriptor: Int32, ownsFile: Bool
    ) throws(UVError) {
        try self.init(loop: loop, for: socket.place)
        self.ownsFile = ownsFile
        self.socket = socket
        do throws(UVError) {
            try check(
                self.isTCP
                    ? uv_tcp_open(cuv_tcp_of_stream(self.raw), descriptor)
                    : uv_pipe_open(cuv_pipe_of_stream(self.raw), descriptor))
            try check(uv_listen(self.raw, ListenerSocket.backlog, onConnection))
        } catch {
            self.close()
            throw error
        }
    }

    /// Creates the handle without a socket.
    private init(loop: EventLoop, for place: Place) throws(UVError) {
        self.place = place
        switch place {
        case .tcp:
            self.isTCP = true
            super.init(loop: loop, uv_tcp_t.self)
            try check(uv_tcp_init(loop.raw, cuv_tcp_of_stream(self.raw)))
        case .unix:
            self.isTCP = false
            super.init(loop: loop, uv_pipe_t.self)
            try check(uv_pipe_init(loop.raw, cuv_pipe_of_stream(self.raw), 0))
        }
        self.opened()
    }

    /// The address and port of a TCP listener; nil for a unix socket.
    package var address: SocketAddress? {
        if case .tcp(let address) = self.place { address } else { nil }
    }

    /// The port of a TCP listener; 0 for a unix socket.
    package var port: UInt16 { self.address?.port ?? 0 }

    /// The descriptor, which the listener still owns; nil if the listener is closed.
    package var descriptor: Int32? {
        var descriptor: uv_os_fd_t = -1
        guard self.isOpen, uv_fileno(cuv_handle(self.memory), &descriptor) == 0 else { return nil }
        return descriptor
    }

    /// Stops accepting; further connections wait in the backlog.
    package func pause() { self.isPaused = true }

    package func resume() {
        guard self.isPaused, self.isOpen else { return }
        self.isPaused = false
        if self.holdsConnection {
            self.holdsConnection = false
            self.accept()
        }
    }

    /// Stops listening. The kernel resets connections in the backlog, unless another process also has the socket.
    package func close() {
        guard self.isOpen else { return }
        if self.ownsFile, case .unix(let path) = self.place { unlink(path) }
        self.leave()
    }

    /// Closes our copy of the descriptor and keeps the file of a unix socket. If another process also has the socket,
    /// connections keep waiting in its backlog.
    package func leave() {
        guard self.isOpen else { return }
        // No other process can take this connection any more.
        if self.holdsConnection { self.resetHeldConnection() }
        // After this, no other thread can shut down a socket by this descriptor number, which may soon be reused.
        let descriptor = self.socket?.release()
        let isOpened = self.hasDescriptor
        self.closeHandle()
        if let descriptor, !isOpened { Glibc.close(descriptor) }
    }

    /// Whether libuv owns the descriptor and will close it.
    private var hasDescriptor: Bool {
        var descriptor: uv_os_fd_t = -1
        return uv_fileno(cuv_handle(self.memory), &descriptor) == 0
    }

    /// Whether the kernel still accepts connections on the socket.
    package var isListening: Bool {
        var answer: CInt = 0
        var size = socklen_t(MemoryLayout<CInt>.size)
        guard let descriptor = self.descriptor else { return false }
        return getsockopt(descriptor, SOL_SOCKET, SO_ACCEPTCONN, &answer, &size) == 0 && answer != 0
    }

    fileprivate func connectionArrived(_ status: CInt) {
        guard self.isOpen else { return }
        guard status == 0 else {
            let error = UVError(code: status)
            self.delegate?.listener(self, didFail: error)
            // Another thread has shut down the socket (accept(2)). Leave, because libuv would retry forever.
            if error == .invalidArgument { self.leave() }
            return
        }
        // libuv stops polling the listener until the connection is taken, which implements the pause.
        if self.isPaused {
            self.holdsConnection = true
        } else if self.accepted.turn == self.loop.turn, self.accepted.count >= Self.maxPerTurn {
            self.holdsConnection = true
            self.loop.atTurnEnd(self)
        } else {
            self.accept()
        }
    }

    private func accept() {
        if self.accepted.turn != self.loop.turn { self.accepted = (self.loop.turn, 0) }
        self.accepted.count += 1
        do throws(UVError) {
            let stream = try self.unconnected()
            do throws(UVError) { try check(uv_accept(self.raw, stream.raw)) } catch {
                stream.close()
                throw error
            }
            guard let delegate = self.delegate else { return stream.close() }
            delegate.listener(self, didAccept: stream)
        } catch {
            self.delegate?.listener(self, didFail: error)
        }
    }

    private func unconnected() throws(UVError) -> SocketStream {
        self.isTCP ? try SocketStream.tcp(loop: self.loop) : try SocketStream.unix(loop: self.loop)
    }

    /// Resets the held connection. libuv would close it in order, which the visitor could mistake for an empty answer.
    private func resetHeldConnection() {
        self.holdsConnection = false
        // If this fails for lack of memory or descriptors, libuv closes the connection.
        guard let stream = try? self.unconnected() else { return }
        if uv_accept(self.raw, stream.raw) == 0 { stream.reset() } else { stream.close() }
    }

    override func didClose() { self.delegate = nil }
}

extension SocketListener: TurnEndHandler {
    package func turnDidEnd() {
        guard self.isOpen, !self.isPaused, self.holdsConnection else { return }
        self.holdsConnection = false
        self.accept()
    }
}

private let onConnection: uv_connection_cb = { handle, status in
    borrow(handle?.pointee.data) { (listener: SocketListener) in listener.connectionArrived(status) }
}
