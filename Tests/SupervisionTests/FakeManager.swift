import Glibc
import Testing

/// The socket of a service manager: a datagram socket with an abstract name.
final class FakeManager {
    struct Message: Equatable {
        let lines: [String]
        let descriptor: Int32?
    }

    let descriptor: Int32
    /// The bytes of the socket's sun_path.
    let address: [UInt8]

    init() throws {
        let descriptor = socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        try #require(descriptor >= 0)
        self.descriptor = descriptor
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        // An address of only the family makes the kernel choose an abstract name (unix(7), autobind).
        let family = socklen_t(MemoryLayout<sa_family_t>.size)
        let bound = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { bind(descriptor, $0, family) }
        }
        try #require(bound == 0)
        var length = socklen_t(MemoryLayout<sockaddr_un>.size)
        let named = withUnsafeMutablePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { getsockname(descriptor, $0, &length) }
        }
        try #require(named == 0)
        self.address = withUnsafeBytes(of: &address) { Array($0[Int(family)..<Int(length)]) }
    }

    deinit { Glibc.close(self.descriptor) }

    /// The next message, or nil if none is queued.
    func receive() -> Message? {
        var text = [UInt8](repeating: 0, count: 4_096)
        // A cmsghdr with one descriptor: its length, level and type, then the descriptor (cmsg(3), on 64-bit Linux).
        var control = [UInt64](repeating: 0, count: 3)
        var count = 0
        var controlLength = 0
        text.withUnsafeMutableBytes { text in
            control.withUnsafeMutableBytes { control in
                var part = iovec(iov_base: text.baseAddress, iov_len: text.count)
                withUnsafeMutablePointer(to: &part) { part in
                    var header = msghdr()
                    header.msg_iov = part
                    header.msg_iovlen = 1
                    header.msg_control = control.baseAddress
                    header.msg_controllen = control.count
                    count = recvmsg(self.descriptor, &header, Int32(MSG_DONTWAIT))
                    controlLength = header.msg_controllen
                }
            }
        }
        guard count >= 0 else { return nil }
        let lines = String(decoding: text[..<count], as: UTF8.self).split(separator: "\n").map(String.init)
        return Message(
            lines: lines, descriptor: controlLength >= 20 ? Int32(truncatingIfNeeded: control[2]) : nil)
    }

    /// The lines of all queued messages.
    func lines() -> [[String]] {
        var result: [[String]] = []
        while let message = self.receive() { result.append(message.lines) }
        return result
    }
}

/// A listening TCP socket on a port chosen by the system.
func listeningSocket() throws -> Int32 {
    let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    try #require(descriptor >= 0)
    try #require(listen(descriptor, 1) == 0)
    return descriptor
}

/// The inode shows whether two descriptors refer to the same socket.
func inode(_ descriptor: Int32) -> UInt64? {
    var status = stat()
    return fstat(descriptor, &status) == 0 ? UInt64(status.st_ino) : nil
}
