/// What a command line says, by the name of the key that has the same meaning.
package struct CommandOptions: Sendable {
    private var given: [String: [String]] = [:]

    package init() {}

    /// The texts behind an option, one for each time that it was given; empty when it was not. One without a value has an
    /// empty text.
    package subscript(_ key: String) -> [String] {
        get { self.given[key] ?? [] }
        set { self.given[key] = newValue.isEmpty ? nil : newValue }
    }

    package subscript(_ key: some DescribedKey) -> [String] {
        get { self[key.description.name] }
        set { self[key.description.name] = newValue }
    }

    /// The path of the configuration file; nil when none was named.
    package var configuration: String? {
        get { self["config"].last }
        set { self["config"] = newValue.map { [$0] } ?? [] }
    }
}
