// pollfd belongs to whichever of the two modules is built first.
internal import CUV
import Glibc
import Synchronization

/// Writes lines to a descriptor that nobody may read, without ever waiting for the reader.
///
/// A pipe that poll(2) calls writable takes PIPE_BUF bytes at once (pipe(7)), so lines are cut to that. The descriptor
/// itself is not made non-blocking, as that would change it for every program that shares it. A terminal is called
/// writable when it takes one byte, and write(2) then waits for room for the others: it is opened once more, for this
/// writer alone.
package final class PatientWriter: Sendable {
    /// The longest line, with its end: PIPE_BUF on Linux.
    package static let maxBytes = 4_096

    private let descriptor: CInt
    /// A part of a line was written, on a full disk for instance, and its end was not.
    private let isTorn = Atomic<Bool>(false)

    package static let standardOutput = PatientWriter(descriptor: STDOUT_FILENO)
    package static let standardError = PatientWriter(descriptor: STDERR_FILENO)

    package init(descriptor: CInt) {
        var descriptor = descriptor
        if isatty(descriptor) == 1 {
            let own = open("/proc/self/fd/\(descriptor)", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC)
            // Somebody else's terminal, after su(1) for instance, is used as it is.
            if own >= 0 { descriptor = own }
        }
        self.descriptor = descriptor
    }

    /// False when the line was not written as a whole: nobody reads, nobody is there, or there is no room.
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
