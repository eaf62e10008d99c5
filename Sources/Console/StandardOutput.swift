import Glibc

/// Why standard output takes nothing.
package struct OutputError: Error, Equatable, CustomStringConvertible {
    /// Of errno(3).
    let code: CInt

    /// Whoever read it has what was wanted, as `head` has, and needs to be told nothing.
    package var isReaderGone: Bool { self.code == EPIPE }

    package var description: String {
        "standard output: " + (self.code == EBADF ? "closed" : String(cString: strerror(self.code)).lowercased())
    }
}

/// What a command was asked for. Somebody waits for it, and must not be told that all went well when it got lost.
package enum StandardOutput {
    /// Writes a text and a newline, and returns when the system has both.
    package static func write(line text: String) throws(OutputError) { try self.write(text + "\n") }

    /// Writes a text, and returns when the system has it.
    package static func write(_ text: String) throws(OutputError) {
        var rest = Array(text.utf8)[...]
        while !rest.isEmpty {
            let count = rest.withUnsafeBytes { Glibc.write(STDOUT_FILENO, $0.baseAddress, $0.count) }
            guard count < 0 else {
                rest = rest.dropFirst(count)
                continue
            }
            switch errno {
            case EINTR: continue
            case EAGAIN:
                // Somebody else made the terminal or pipe that way.
                var request = pollfd(fd: STDOUT_FILENO, events: Int16(POLLOUT), revents: 0)
                _ = poll(&request, 1, -1)
            default: throw OutputError(code: errno)
            }
        }
    }
}
