import Glibc
internal import Settings

/// What went wrong in a command that has no log.
package enum Complaint {
    /// Writes a line to standard error, without the secrets that may be in it.
    package static func write(_ text: String) { self.write("error", text) }

    /// The same for what does not make the command fail.
    package static func warn(_ text: String) { self.write("warning", text) }

    private static func write(_ level: String, _ text: String) {
        // The parser repeats arguments as they are.
        let lines = Secrets.hidden(in: text).split(separator: "\n", omittingEmptySubsequences: false)
            .map { SettingsError.withoutControls(String($0)) }
        Array("\(level): \(lines.joined(separator: "\n"))\n".utf8).withUnsafeBytes {
            _ = Glibc.write(STDERR_FILENO, $0.baseAddress, $0.count)
        }
    }
}
