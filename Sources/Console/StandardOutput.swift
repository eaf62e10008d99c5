import Glibc

/// Why writing to standard output failed.
package struct OutputError: Error, Equatable, CustomStringConvertible {
    /// An errno(3) value.
    let code: CInt

    /// The reader has closed its end and has what it wanted, as `head` does. This need not be reported.
    package var isReaderGone: Bool { self.code == EPIPE }

    package var description: String {
        "standard output: " + (self.code == EBADF ? "closed" : String(cString: strerror(self.code)).lowercased())
    }
}

/// The output of a command. Failing to write it is an error, because the caller must not take lost output for success.
package enum StandardOutput {
    /// Writes a text and a newline. Blocks until the system has accepted both.
    package static func write(line text: String) throws(OutputError) { try self.write(text + "\n") }

    /// Writes a text. Blocks until the system has accepted all of it.
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
                // Another program has made the terminal or pipe non-blocking.
                var request = pollfd(fd: STDOUT_FILENO, events: Int16(POLLOUT), revents: 0)
                _ = poll(&request, 1, -1)
            default: throw OutputError(code: errno)
            }
        }
    }
}
