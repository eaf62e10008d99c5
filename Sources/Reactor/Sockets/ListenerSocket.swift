internal import CUV
internal import Glibc
internal import Synchronization

/// A socket that listens, without a loop: the kernel takes connections for it, and they wait in its backlog.
///
/// Threads share it: one has a ``SocketListener`` on it, which closes it with itself, while another may end the listening
/// at any time. The last reference closes it, unless that was done before.
package final class ListenerSocket: Sendable {
    private struct State {
        /// Nil when it is closed.
        var descriptor: Int32?
        var isShut = false
    }

    /// Connections that wait to be accepted (listen(2)).
    static let backlog: Int32 = 1_024

    /// The port is the one that the system chose.
    package let place: SocketListener.Place
    private let state: Mutex<State>

    /// Binds and listens.
    ///
    /// - Parameter takesBothFamilies: whether a socket on `::` takes IPv4 connections too; otherwise none on an IPv6
    ///   address does, so that both families can have their own.
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

    /// Makes a unix socket and listens. A file of that name that is there already is an error.
    package init(path: String, access: SocketListener.Access) throws(UVError) {
        // The file is created with its final mode. A later chmod by name could hit another file that a process with write
        // access to the directory has put in its place.
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

    /// Wraps a socket that another process has bound. Nil unless it is a TCP or unix stream socket; the descriptor then
    /// stays open.
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

    /// Nil for a unix socket.
    package var address: SocketAddress? {
        if case .tcp(let address) = self.place { address } else { nil }
    }

    /// It stays this socket's; nil when that is closed.
    package var descriptor: Int32? { self.state.withLock { $0.descriptor } }

    /// Whether ``shutDown()`` was called.
    package var isShut: Bool { self.state.withLock { $0.isShut } }

    /// Closes our copy. Connections in the backlog are reset, unless another process has the socket too.
    package func close() {
        if let descriptor = self.release() { Glibc.close(descriptor) }
    }

    /// The descriptor, which the caller closes; nil when it is closed already.
    func release() -> Int32? {
        self.state.withLock { state in
            defer { state.descriptor = nil }
            return state.descriptor
        }
    }

    /// Ends the listening at once for all that have the socket, also other processes. The file of a unix socket goes with
    /// it. The descriptor stays open.
    package func shutDown() {
        self.state.withLock { state in
            guard !state.isShut else { return }
            state.isShut = true
            if case .unix(let path) = self.place { unlink(path) }
            // A listening TCP socket is closed by this: the backlog is reset and the port is free (Linux, tcp_disconnect).
            if let descriptor = state.descriptor { _ = Glibc.shutdown(descriptor, Int32(SHUT_RDWR)) }
        }
    }
}
