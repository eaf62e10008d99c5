package import Settings

/// Options that were given twice although they have one value. The parser keeps the last without a word.
package enum RepeatedOptions {
    /// The error about the first such option, or nil.
    ///
    /// - Parameters:
    ///   - arguments: what was typed after the program's name.
    ///   - tables: where the options are declared.
    package static func error(in arguments: [String], _ tables: [any KeyTable.Type]) -> String? {
        let options =
            tables.flatMap { $0.descriptions }.filter { $0.option.map { !$0.isArgument } ?? false }
            + [CommonKeys.config.description]
        var names: [String: KeyDescription] = [:]
        // The first declares the option; `name` of a table [[expose]] shares it.
        for description in options where names["--\(description.longOption)"] == nil {
            names["--\(description.longOption)"] = description
            if let short = description.option?.short { names["-\(short)"] = description }
        }
        var seen: Set<String> = []
        var rest = arguments[...]
        while let argument = rest.popFirst(), argument != "--" {
            let parts = argument.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            for name in self.names(in: argument) {
                guard let description = names[name], let option = description.option, option.hasValue(description)
                else { continue }
                // The value is the next argument, whatever it looks like.
                if parts.count == 1 || !argument.hasPrefix("--") { rest = rest.dropFirst() }
                if !option.repeats, !seen.insert(description.longOption).inserted {
                    return "option --\(description.longOption): may be given only once"
                }
            }
        }
        return nil
    }

    /// `--name` of `--name=value`; `-d` and `-g` of `-dg`.
    private static func names(in argument: String) -> [String] {
        if argument.hasPrefix("--") { return [String(argument.prefix { $0 != "=" })] }
        return argument.hasPrefix("-") ? argument.dropFirst().map { "-\($0)" } : []
    }
}

extension CommandOption {
    /// Whether the option has a value; a switch has none.
    fileprivate func hasValue(_ description: KeyDescription) -> Bool {
        self.value != nil || description.choices != nil
    }
}
