package import Settings

/// Options that were given twice although they have one value. The parser silently keeps the last.
package enum RepeatedOptions {
    /// The error about the first such option, or nil.
    package static func error(in arguments: [String], _ tables: [any KeyTable.Type]) -> String? {
        var seen: Set<String> = []
        for found in ArgumentScanner(arguments, tables).values where found.option.option?.repeats == false {
            guard seen.insert(found.option.longOption).inserted else {
                return "option --\(found.option.longOption): may be given only once"
            }
        }
        return nil
    }
}
