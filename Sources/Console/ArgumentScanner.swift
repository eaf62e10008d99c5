package import Settings

/// Finds options and words in a command line without the parser. The parser does not report how often an option was
/// given, and a failed parse has no values.
package struct ArgumentScanner {
    package struct Found {
        package let option: KeyDescription
        package let value: String
    }

    /// Options with a value, each time they were given.
    package private(set) var values: [Found] = []
    /// Everything that is neither an option nor its value: commands and arguments.
    package private(set) var words: [String] = []

    /// - Parameters:
    ///   - arguments: what was typed after the program's name.
    ///   - tables: where the options are declared.
    package init(_ arguments: [String], _ tables: [any KeyTable.Type]) {
        let options = Self.options(tables)
        var index = 0
        while index < arguments.count {
            let argument = arguments[index]
            index += 1
            guard argument != "--" else {
                self.words += arguments[index...]
                return
            }
            guard argument.hasPrefix("-"), argument != "-" else {
                self.words.append(argument)
                continue
            }
            let parts = argument.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            for name in Self.names(String(parts[0])) {
                guard let option = options[name] else { continue }
                if parts.count > 1 {
                    self.values.append(Found(option: option, value: String(parts[1])))
                } else if index < arguments.count {
                    // The value is the next argument, whatever it looks like.
                    self.values.append(Found(option: option, value: arguments[index]))
                    index += 1
                }
            }
        }
    }

    /// `--name`, or `-d` and `-g` of `-dg`.
    private static func names(_ argument: String) -> [String] {
        argument.hasPrefix("--") ? [argument] : argument.dropFirst().map { "-\($0)" }
    }

    /// The options with a value, by the names under which they are typed.
    private static func options(_ tables: [any KeyTable.Type]) -> [String: KeyDescription] {
        var result: [String: KeyDescription] = [:]
        for description in tables.flatMap({ $0.descriptions }) + [CommonKeys.config.description] {
            guard let option = description.option, !option.isArgument,
                option.value != nil || description.choices != nil
            else { continue }
            let names = ["--\(description.longOption)"] + (option.short.map { ["-\($0)"] } ?? [])
            // The first declares the option; `name` of a table [[expose]] shares it.
            for name in names where result[name] == nil { result[name] = description }
        }
        return result
    }
}
