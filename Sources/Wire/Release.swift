/// What both programs are.
package enum Release {
    /// Semantic version, as HELLO, `--version`, reports and requests to web servers tell it.
    package static let version = "2.0.0"
}
