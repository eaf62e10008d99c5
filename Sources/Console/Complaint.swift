import Glibc

/// What went wrong in a command that has no log.
package enum Complaint {
    /// Writes a line to standard error, without the secrets that may be in it.
    package static func write(_ text: String) {
        Array("error: \(Secrets.hidden(in: text))\n".utf8).withUnsafeBytes {
            _ = Glibc.write(STDERR_FILENO, $0.baseAddress, $0.count)
        }
    }
}
