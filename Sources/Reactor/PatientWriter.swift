// pollfd belongs to whichever of the two modules is built first.
internal import CUV
import Glibc

/// Writes lines to a descriptor that may be a pipe nobody reads, without ever waiting for the reader.
///
/// A pipe that poll(2) calls writable takes PIPE_BUF bytes at once (pipe(7)), so lines are cut to that. The descriptor
/// itself is not made non-blocking, as that would change it for every program that shares it.
package struct PatientWriter {
    /// The longest line, with its end: PIPE_BUF on Linux.
    package static let mostBytes = 4_096

    private let descriptor: CInt

    package static let standardOutput = PatientWriter(descriptor: STDOUT_FILENO)
    package static let standardError = PatientWriter(descriptor: STDERR_FILENO)

    /// False when nothing of the line was written: nobody reads, or nobody is there.
    package func write(_ line: String) -> Bool {
        var request = pollfd(fd: self.descriptor, events: Int16(POLLOUT), revents: 0)
        guard poll(&request, 1, 0) == 1, request.revents & Int16(POLLOUT) != 0 else { return false }
        var bytes = Array(line.utf8.prefix(Self.mostBytes - 1))
        bytes.append(0x0A)
        return bytes.withUnsafeBytes { Glibc.write(self.descriptor, $0.baseAddress, $0.count) } > 0
    }
}
