import Glibc
internal import Settings

/// Errors and warnings of commands that have no log.
package enum Complaint {
    /// Writes an error to standard error, and removes secrets from it.
    package static func write(_ text: String) { self.write("error", text) }

    /// Writes a warning in the same way: the command does not fail.
    package static func warn(_ text: String) { self.write("warning", text) }

    private static func write(_ level: String, _ text: String) {
        // The parser repeats arguments unescaped.
        let lines = Secrets.hidden(in: text).split(separator: "\n", omittingEmptySubsequences: false)
            .map { SettingsError.withoutControls(String($0)) }
        Array("\(level): \(lines.joined(separator: "\n"))\n".utf8).withUnsafeBytes {
            _ = Glibc.write(STDERR_FILENO, $0.baseAddress, $0.count)
        }
    }
}
