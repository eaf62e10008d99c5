package import ArgumentParser
package import Settings

// Command-line options that are declared by their keys: `@Option(keys.listen) var listen: [String] = []`.

extension Option {
    /// An option that is given at most once.
    package init(_ key: some DescribedKey) where Value == String? {
        self.init(
            name: key.description.optionNames, parsing: .next, help: key.description.argumentHelp,
            completion: key.description.completion)
    }

    /// - Parameter parsing: how the value after the option is parsed, as in the parser's own initializer.
    package init(
        wrappedValue: [String], _ key: some DescribedKey, parsing: ArrayParsingStrategy = .singleValue
    ) where Value == [String] {
        self.init(
            wrappedValue: wrappedValue, name: key.description.optionNames, parsing: parsing,
            help: key.description.argumentHelp, completion: key.description.completion)
    }
}

extension Flag {
    package init(wrappedValue: Bool, _ key: some DescribedKey) where Value == Bool {
        self.init(wrappedValue: wrappedValue, name: key.description.optionNames, help: key.description.argumentHelp)
    }

    /// A flag that is counted.
    package init(_ key: some DescribedKey) where Value == Int {
        self.init(name: key.description.optionNames, help: key.description.argumentHelp)
    }
}

extension Argument {
    package init(_ key: some DescribedKey) where Value == String? {
        self.init(help: key.description.argumentHelp, completion: key.description.completion)
    }
}

extension KeyDescription {
    fileprivate var optionNames: NameSpecification {
        let long = NameSpecification.Element.customLong(self.longOption)
        guard let short = self.option?.short else { return [long] }
        return [.customShort(short), long]
    }

    fileprivate var argumentHelp: ArgumentHelp {
        let value = self.option?.isArgument == true ? self.name : self.option?.value
        return ArgumentHelp("\(self.help)", valueName: value ?? self.choices?.joined(separator: "|"))
    }

    fileprivate var completion: CompletionKind? {
        if let words = self.choices ?? self.option?.words { return .list(words) }
        return switch self.option?.completion {
        case .directory: .directory
        case .file: .file()
        case .tomlFile: .file(extensions: ["toml"])
        case .some(.none), nil: nil
        }
    }
}

extension CommandOptions {
    /// The options given to a command. Its properties are named after keys: `listenV1` is `listen-v1`. Traps if a
    /// property has no key.
    ///
    /// - Parameter tables: the tables that contain the keys.
    package init(of command: some ParsableCommand, _ tables: [any KeyTable.Type]) {
        self.init()
        let known = tables.reduce(into: Set([CommonKeys.config.description.name])) { $0.formUnion($1.names) }
        for (label, value) in Mirror(reflecting: command).children {
            guard let label, let texts = Self.texts(of: value) else { continue }
            let name = Self.keyName(of: label)
            precondition(known.contains(name), "the property \(label) has no key")
            self[name] = texts
        }
    }

    /// Nil for a property that is not an option.
    private static func texts(of value: Any) -> [String]? {
        switch value {
        case let option as Option<[String]>: option.wrappedValue
        case let option as Option<String?>: option.wrappedValue.map { [$0] } ?? []
        case let argument as Argument<String?>: argument.wrappedValue.map { [$0] } ?? []
        case let flag as Flag<Bool>: flag.wrappedValue ? [""] : []
        case let flag as Flag<Int>: Array(repeating: "", count: flag.wrappedValue)
        default: nil
        }
    }

    /// - Parameter label: the name of the property's storage, `_listenV1`.
    private static func keyName(of label: String) -> String {
        label.drop { $0 == "_" }.reduce(into: "") { name, letter in
            name += letter.isUppercase ? "-\(letter.lowercased())" : String(letter)
        }
    }
}
