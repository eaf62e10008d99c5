// Both imports are needed: either module may own `pollfd`, depending on which is built first.
internal import CUV
import Glibc
import Synchronization

/// Writes lines to a descriptor without ever blocking on a slow or absent reader.
///
/// If poll(2) reports a pipe as writable, it takes PIPE_BUF bytes at once (pipe(7)), so lines are cut to that length.
/// The descriptor is not made non-blocking, because that would affect every program that shares it. A terminal counts
/// as writable as soon as it takes one byte, and write(2) would block for the rest. It is therefore reopened as
/// non-blocking, for this writer alone.
package final class PatientWriter: Sendable {
    /// Maximum line length in bytes, including the newline: PIPE_BUF on Linux.
    package static let maxBytes = 4_096

    private let descriptor: CInt
    /// Whether the last line was written only in part, for example to a full disk. The next write then begins with a
    /// newline.
    private let isTorn = Atomic<Bool>(false)

    package static let standardOutput = PatientWriter(descriptor: STDOUT_FILENO)
    package static let standardError = PatientWriter(descriptor: STDERR_FILENO)

    /// The descriptor stays the caller's, and must stay open.
    package init(descriptor: CInt) {
        var descriptor = descriptor
        if isatty(descriptor) == 1 {
            let own = open("/proc/self/fd/\(descriptor)", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC)
            // Opening fails for another user's terminal, for example after su(1). Use it as it is.
            if own >= 0 { descriptor = own }
        }
        self.descriptor = descriptor
    }

    /// Writes a line and its newline, cut to `maxBytes`. Returns false if the line was not written completely: the
    /// reader is slow or gone, or the disk is full.
    package func write(_ line: String) -> Bool {
        var request = pollfd(fd: self.descriptor, events: Int16(POLLOUT), revents: 0)
        guard poll(&request, 1, 0) == 1, request.revents & Int16(POLLOUT) != 0 else { return false }
        var bytes: [UInt8] = self.isTorn.load(ordering: .relaxed) ? [0x0A] : []
        bytes += line.utf8.prefix(Self.maxBytes - 1 - bytes.count)
        bytes.append(0x0A)
        let count = bytes.withUnsafeBytes { Glibc.write(self.descriptor, $0.baseAddress, $0.count) }
        guard count > 0 else { return false }
        self.isTorn.store(count < bytes.count, ordering: .relaxed)
        return count == bytes.count
    }
}
