internal import CUV
internal import Glibc

/// A socket that listens, without a loop: the kernel takes connections for it, and they wait in its backlog.
///
/// It is the number of a descriptor, which every thread may have. Who made it ends it, by ``close()`` or ``shutDown()``,
/// or gives it to a ``SocketListener``, which closes it with itself.
package struct ListenerSocket: Hashable, Sendable {
    /// Connections that wait to be accepted (listen(2)).
    static let backlog: Int32 = 1_024

    package let descriptor: Int32
    /// The port is the one that the system chose.
    package let place: SocketListener.Place

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
        self.descriptor = descriptor
        self.place = place
    }

    /// Makes a unix socket and listens. A file of that name that is there already is an error.
    package init(path: String, access: SocketListener.Access) throws(UVError) {
        // The file has its rights from its first moment: whoever may write to the directory could put another file into
        // its place before they are changed by name.
        let mask = umask(~access.mode & 0o777)
        let made = cuv_unix_socket(path)
        umask(mask)
        self.descriptor = try check(made)
        self.place = .unix(path: path)
        // Nobody can connect before listen(2).
        let isGroupRight = access.group.map { lchown(path, uid_t.max, $0) == 0 } ?? true
        guard isGroupRight, listen(self.descriptor, Self.backlog) == 0 else {
            let code = -errno
            self.close()
            unlink(path)
            throw UVError(code: code)
        }
    }

    /// A socket that another process has bound. Nil when it is no stream socket of these families; it then stays open.
    package init?(inherited descriptor: Int32) {
        guard let place = Self.place(of: descriptor) else { return nil }
        self.descriptor = descriptor
        self.place = place
    }

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

    /// Closes our copy. Connections in the backlog are reset, unless another process has the socket too.
    package func close() { Glibc.close(self.descriptor) }

    /// Ends the listening for all who have the socket, at once, and whoever closes it later. The file of a unix socket
    /// goes with it. The descriptor stays open.
    package func shutDown() {
        if case .unix(let path) = self.place { unlink(path) }
        // Of a listening TCP socket it is the end: who waits is reset, and the port is free (Linux, tcp_disconnect).
        _ = Glibc.shutdown(self.descriptor, Int32(SHUT_RDWR))
    }
}
