/// The format of log lines.
package enum LogFormat: String, Sendable, CaseIterable {
    /// For people, and for programs that parse the two lines about domains.
    case text
    /// One JSON object per line, for programs.
    case json

    /// The configured format, as far as it is known despite errors in the settings. They are reported in it.
    ///
    /// - Parameters:
    ///   - option: the value on the command line.
    ///   - configuration: the path of the configuration file.
    package static func wanted(option: String?, configuration: String?) -> LogFormat {
        if let option { return Self(rawValue: option) ?? .text }
        guard let configuration, FileAccess.isRegular(configuration), let file = try? TOMLFile(path: configuration),
            let text = try? file.root.string("log-format")
        else { return .text }
        return Self(rawValue: text) ?? .text
    }
}
