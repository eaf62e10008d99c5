internal import CUV
internal import Glibc

/// Hears of connections that a ``SocketListener`` accepts.
package protocol SocketListenerDelegate: AnyObject {
    /// Set the stream's delegate, or close it.
    func listener(_ listener: SocketListener, didAccept stream: SocketStream)
    /// A connection could not be accepted (no descriptors, the peer was gone); the listener goes on.
    func listener(_ listener: SocketListener, didFail error: UVError)
}

/// A listening socket, TCP or unix.
package final class SocketListener: LoopHandle {
    /// Where a listener is found.
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

    /// Who may connect to a unix socket: whoever may write to it (unix(7)).
    package struct Access: Sendable {
        package let mode: UInt32
        /// Nil: the process's own group.
        package let group: UInt32?

        package init(mode: UInt32, group: UInt32?) {
            self.mode = mode
            self.group = group
        }
    }

    /// Connections that are accepted in one turn of the loop, each of which costs tens of microseconds until it is read;
    /// the others wait in the backlog, so that those who are here already get their turn.
    package static let maxPerTurn = 16

    private var raw: UnsafeMutablePointer<uv_stream_t> { self.memory.assumingMemoryBound(to: uv_stream_t.self) }
    private let isTCP: Bool
    private var isPaused = false
    private var accepted: (turn: UInt64, count: Int) = (0, 0)
    /// Whether the file of a unix socket goes with it.
    private var ownsFile = false
    private var socket: ListenerSocket?
    /// libuv holds one accepted connection for us and waits until it is taken.
    private var holdsConnection = false
    package var delegate: (any SocketListenerDelegate)?
    package let place: Place

    /// Binds and listens: see ``ListenerSocket/init(address:takesBothFamilies:)``.
    package convenience init(
        loop: EventLoop, address: SocketAddress, takesBothFamilies: Bool = false
    ) throws(UVError) {
        try self.init(
            loop: loop, adopting: try ListenerSocket(address: address, takesBothFamilies: takesBothFamilies))
    }

    /// Makes a unix socket and listens. The file is removed by `close()`; one of that name that is there already is an
    /// error.
    package convenience init(loop: EventLoop, path: String, access: Access) throws(UVError) {
        try self.init(loop: loop, adopting: try ListenerSocket(path: path, access: access), ownsFile: true)
    }

    /// Takes over a socket that listens already.
    ///
    /// - Parameters:
    ///   - socket: it closes with the listener, and when this throws.
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

    /// Makes the handle, without a socket yet.
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

    /// The address with its port, of a TCP listener.
    package var address: SocketAddress? {
        if case .tcp(let address) = self.place { address } else { nil }
    }

    /// The port that it listens on; 0 for a unix socket.
    package var port: UInt16 { self.address?.port ?? 0 }

    /// It stays the listener's; nil when that is closed.
    package var descriptor: Int32? {
        var descriptor: uv_os_fd_t = -1
        guard self.isOpen, uv_fileno(cuv_handle(self.memory), &descriptor) == 0 else { return nil }
        return descriptor
    }

    /// Leaves further connections in the backlog.
    package func pause() { self.isPaused = true }

    package func resume() {
        guard self.isPaused, self.isOpen else { return }
        self.isPaused = false
        if self.holdsConnection {
            self.holdsConnection = false
            self.accept()
        }
    }

    /// Stops listening; connections in the backlog are reset by the system, unless another process has the socket too.
    package func close() {
        guard self.isOpen else { return }
        if self.ownsFile, case .unix(let path) = self.place { unlink(path) }
        self.leave()
    }

    /// Closes our copy of a socket that another process keeps: connections go on waiting in its backlog.
    package func leave() {
        guard self.isOpen else { return }
        // This one is ours alone.
        if self.holdsConnection { self.resetHeldConnection() }
        // From here on no other thread can end a socket by this number, which may soon be another one's.
        let descriptor = self.socket?.release()
        let isOpened = self.hasDescriptor
        self.closeHandle()
        if let descriptor, !isOpened { Glibc.close(descriptor) }
    }

    /// Whether libuv has the descriptor, and closes it.
    private var hasDescriptor: Bool {
        var descriptor: uv_os_fd_t = -1
        return uv_fileno(cuv_handle(self.memory), &descriptor) == 0
    }

    /// Whether the kernel takes connections for it.
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
            // Another thread has ended the listening (accept(2)); libuv would try again and again.
            if error == .invalidArgument { self.leave() }
            return
        }
        // Not taking the connection makes libuv stop polling the listener, which is what a pause is.
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

    /// libuv would close the connection that it holds in order, which the visitor could take for an empty answer.
    private func resetHeldConnection() {
        self.holdsConnection = false
        // Without memory or descriptors it ends as libuv likes.
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
