/// What is wrong with an argument, a file or a directory: where it is, why, and where possible what to do.
package struct SettingsError: Error, Equatable, Sendable, CustomStringConvertible {
    /// `option -g`, `diglett.toml:12`, `/var/lib/diglett/ports.json`, ...
    package let place: String
    package let reason: String

    package init(_ place: String, _ reason: String) {
        self.place = place
        self.reason = reason
    }

    package var description: String { "\(self.place): \(self.reason)" }
}
