internal import CUV
internal import Glibc
internal import Synchronization

/// A listening socket without an event loop. The kernel accepts connections for it and keeps them in its backlog.
///
/// Threads can share it: one uses it in a ``SocketListener``, which closes it when it closes itself, and another may
/// shut it down at any time. `deinit` closes the descriptor if it is still open.
package final class ListenerSocket: Sendable {
    private struct State {
        /// Nil after it was closed or released.
        var descriptor: Int32?
        var isShut = false
    }

    /// Maximum number of connections that wait to be accepted (listen(2)).
    static let backlog: Int32 = 1_024

    /// The actual address: its port is the one that the kernel chose.
    package let place: SocketListener.Place
    private let state: Mutex<State>

    /// Binds and listens.
    ///
    /// - Parameter takesBothFamilies: whether a socket on `::` also accepts IPv4 connections. Otherwise sockets on IPv6
    ///   addresses accept only IPv6, and each family can have its own socket on the same port.
    package init(address: SocketAddress, takesBothFamilies: Bool = false) throws(UVError) {
        let descriptor = try check(address.withRaw { cuv_tcp_socket($0, takesBothFamilies ? 0 : 1) })
        guard listen(descriptor, Self.backlog) == 0, let place = Self.place(of: descriptor) else {
            let code = -errno
            Glibc.close(descriptor)
            throw UVError(code: code)
        }
        self.place = place
        self.state = Mutex(State(descriptor: descriptor))
    }

    /// Creates a unix socket and listens. Fails if the file already exists.
    package init(path: String, access: SocketListener.Access) throws(UVError) {
        // Create the file with its final mode. A later chmod by name could change another file that a process with
        // write access to the directory has put in its place.
        let mask = umask(~access.mode & 0o777)
        let made = cuv_unix_socket(path)
        umask(mask)
        let descriptor = try check(made)
        // The kernel refuses connections until listen(2).
        let isGroupRight = access.group.map { lchown(path, uid_t.max, $0) == 0 } ?? true
        guard isGroupRight, listen(descriptor, Self.backlog) == 0 else {
            let code = -errno
            Glibc.close(descriptor)
            unlink(path)
            throw UVError(code: code)
        }
        self.place = .unix(path: path)
        self.state = Mutex(State(descriptor: descriptor))
    }

    /// Takes ownership of a socket that another process has bound. Returns nil if it is neither a TCP socket nor a unix
    /// stream socket with a path; the caller then still owns the descriptor.
    package init?(inherited descriptor: Int32) {
        guard let place = Self.place(of: descriptor) else { return nil }
        self.place = place
        self.state = Mutex(State(descriptor: descriptor))
    }

    deinit { self.close() }

    private static func place(of descriptor: Int32) -> SocketListener.Place? {
        var kind: CInt = 0
        var size = socklen_t(MemoryLayout<CInt>.size)
        guard getsockopt(descriptor, SOL_SOCKET, SO_TYPE, &kind, &size) == 0, kind == cuv_stream_type() else {
            return nil
        }
        var storage = sockaddr_storage()
        var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
        guard getsockname(descriptor, cuv_sockaddr_mutable(&storage), &length) == 0 else { return nil }
        if let address = SocketAddress(&storage) { return .tcp(address) }
        guard CInt(storage.ss_family) == AF_UNIX else { return nil }
        let path = withUnsafeBytes(of: &storage) { bytes in
            bytes[MemoryLayout<sa_family_t>.size..<min(Int(length), bytes.count)].prefix { $0 != 0 }
        }
        return path.isEmpty ? nil : .unix(path: String(decoding: path, as: UTF8.self))
    }

    /// The address of a TCP socket; nil for a unix socket.
    package var address: SocketAddress? {
        if case .tcp(let address) = self.place { address } else { nil }
    }

    /// The descriptor, which this object still owns; nil if it was closed.
    package var descriptor: Int32? { self.state.withLock { $0.descriptor } }

    /// Whether ``shutDown()`` was called.
    package var isShut: Bool { self.state.withLock { $0.isShut } }

    /// Closes our copy of the descriptor. The kernel resets connections in the backlog, unless another process also has
    /// the socket.
    package func close() {
        if let descriptor = self.release() { Glibc.close(descriptor) }
    }

    /// Gives up the descriptor, which the caller must close; nil if it was already closed.
    func release() -> Int32? {
        self.state.withLock { state in
            defer { state.descriptor = nil }
            return state.descriptor
        }
    }

    /// Stops listening at once in all threads and processes that have the socket, and removes the file of a unix
    /// socket. The descriptor stays open.
    package func shutDown() {
        self.state.withLock { state in
            guard !state.isShut else { return }
            state.isShut = true
            if case .unix(let path) = self.place { unlink(path) }
            // On Linux, shutdown(2) resets the backlog of a listening TCP socket and frees its port (tcp_disconnect).
            if let descriptor = state.descriptor { _ = Glibc.shutdown(descriptor, Int32(SHUT_RDWR)) }
        }
    }
}
