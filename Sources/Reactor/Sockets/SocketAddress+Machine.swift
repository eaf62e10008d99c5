internal import CUV
import Glibc

extension SocketAddress {
    /// Whether this machine has the address, so that a socket can be bound to it. True if that is unknown.
    package var isOfThisMachine: Bool {
        let descriptor = socket(
            self.family == .ip4 ? AF_INET : AF_INET6, CInt(SOCK_STREAM.rawValue) | CInt(SOCK_CLOEXEC.rawValue), 0)
        // Without a free descriptor or support for the family, the listener will report the error.
        guard descriptor >= 0 else { return true }
        defer { close(descriptor) }
        var address = self
        address.port = 0
        let result = address.withRaw { storage in
            bind(descriptor, cuv_sockaddr(storage), socklen_t(MemoryLayout<sockaddr_storage>.size))
        }
        return result == 0 || errno != EADDRNOTAVAIL
    }
}
