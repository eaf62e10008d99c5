internal import CNotify
internal import Glibc

/// An unconnected unix socket for datagrams that never waits.
final class UnixDatagram {
    /// The receiver has not read yet what it was sent before, or the kernel lacks memory.
    static let full: Set<Int32> = [EAGAIN, ENOBUFS, ENOMEM]
    static var longestName: Int { cnotify_longest_name() }

    private let descriptor: Int32

    /// Nil when there is no descriptor left.
    init?() {
        let descriptor = cnotify_socket()
        guard descriptor >= 0 else { return nil }
        self.descriptor = descriptor
    }

    deinit { Glibc.close(self.descriptor) }

    /// - Parameters:
    ///   - name: the bytes of a path, or of an abstract name with a zero before it.
    ///   - attached: a descriptor for the receiver, which stays ours as well.
    /// - Returns: 0 or an errno.
    func send(_ text: String, to name: [UInt8], attached: Int32?) -> Int32 {
        let bytes = Array(text.utf8)
        return name.withUnsafeBytes { name in
            bytes.withUnsafeBytes { bytes in
                -cnotify_send(
                    self.descriptor, name.baseAddress, name.count, bytes.baseAddress, bytes.count, attached ?? -1)
            }
        }
    }
}
