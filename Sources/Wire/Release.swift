/// The release of both programs.
package enum Release {
    /// Semantic version, reported in HELLO, `--version`, status reports and requests to web servers.
    package static let version = "2.0.0"
}
