internal import CNotify
internal import Glibc

/// An unconnected, non-blocking unix datagram socket. `deinit` closes it.
final class UnixDatagram {
    /// Errors that are worth a retry: the receiver's queue is full, or the kernel is short of memory.
    static let full: Set<Int32> = [EAGAIN, ENOBUFS, ENOMEM]
    static var longestName: Int { cnotify_longest_name() }

    private let descriptor: Int32

    /// Nil if no socket can be opened, for example because no descriptor is left.
    init?() {
        let descriptor = cnotify_socket()
        guard descriptor >= 0 else { return nil }
        self.descriptor = descriptor
    }

    deinit { Glibc.close(self.descriptor) }

    /// - Parameters:
    ///   - name: the bytes of a path, or of an abstract name with a zero before it.
    ///   - attached: a descriptor to send along; the caller still owns it.
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
