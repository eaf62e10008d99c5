/// How a line of the log is written.
package enum LogFormat: String, Sendable, CaseIterable {
    /// For people, and for programs that read the two lines about domains.
    case text
    /// One JSON object a line, for programs.
    case json

    /// The form that is wanted, as far as it can be told although something else is wrong: in it a program says what.
    ///
    /// - Parameters:
    ///   - option: what the command line says.
    ///   - configuration: the path of the configuration file.
    package static func wanted(option: String?, configuration: String?) -> LogFormat {
        if let option { return Self(rawValue: option) ?? .text }
        guard let configuration, FileAccess.isRegular(configuration), let file = try? TOMLFile(path: configuration),
            let text = try? file.root.string("log-format")
        else { return .text }
        return Self(rawValue: text) ?? .text
    }
}
