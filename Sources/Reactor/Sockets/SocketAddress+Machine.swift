internal import CUV
import Glibc

extension SocketAddress {
    /// Whether a socket can be bound to the address on this machine.
    package var isOfThisMachine: Bool {
        let descriptor = socket(
            self.family == .ip4 ? AF_INET : AF_INET6, CInt(SOCK_STREAM.rawValue) | CInt(SOCK_CLOEXEC.rawValue), 0)
        // Without a descriptor or the family, the listener reports the error.
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
