/// The options of a command line, by key name.
package struct CommandOptions: Sendable {
    private var given: [String: [String]] = [:]

    package init() {}

    /// The values of an option, one for each occurrence. A switch has empty texts.
    package subscript(_ key: String) -> [String] {
        get { self.given[key] ?? [] }
        set { self.given[key] = newValue.isEmpty ? nil : newValue }
    }

    package subscript(_ key: some DescribedKey) -> [String] {
        get { self[key.description.name] }
        set { self[key.description.name] = newValue }
    }

    /// The path of the configuration file; nil without `--config`.
    package var configuration: String? {
        get { self[CommonKeys.config].last }
        set { self[CommonKeys.config] = newValue.map { [$0] } ?? [] }
    }
}
