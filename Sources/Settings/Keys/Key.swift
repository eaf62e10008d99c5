/// One setting of a program.
///
/// This is its only declaration: the file reader, the command line, `--help`, completions, manual pages and the tables
/// of `docs/configuration.md` derive from it.
package struct Key<Value: Sendable>: DescribedKey {
    package let description: KeyDescription
    let form: Form<Value>
    /// The default.
    let standard: Value
    /// The error if the key is missing; nil if it is optional.
    let missing: String?

    /// - Parameters:
    ///   - shown: the default in the document, if the form cannot format it.
    ///   - more: follows `meaning` in the document only.
    init(
        _ name: String, _ form: Form<Value>, default standard: Value, shown: String? = nil,
        option: CommandOption? = nil, _ meaning: String, more: String = ""
    ) {
        self.form = form
        self.standard = standard
        self.missing = nil
        self.description = KeyDescription(
            name: name, type: form.type, standard: shown ?? form.shown(standard) ?? "–", option: option,
            choices: form.choices, meaning: meaning, more: more)
    }

    /// Creates a key without a default.
    ///
    /// - Parameter missing: the error if the key is missing; nil if it is optional.
    init<Given>(
        _ name: String, _ form: Form<Given>, shown: String? = nil, missing: String? = nil,
        option: CommandOption? = nil, _ meaning: String, more: String = ""
    ) where Value == Given? {
        self.form = form.optional
        self.standard = nil
        self.missing = missing
        self.description = KeyDescription(
            name: name, type: form.type, standard: shown ?? (missing == nil ? "–" : "required"), option: option,
            choices: form.choices, meaning: meaning, more: more)
    }
}

/// A key of any type.
package protocol DescribedKey: Sendable {
    var description: KeyDescription { get }
}

/// The name of a key and its documentation. Texts are one line of Markdown.
package struct KeyDescription: Sendable {
    package let name: String
    package let type: ValueType
    /// The default.
    package let standard: String
    /// Nil if the command line has no option for it.
    package let option: CommandOption?
    /// The allowed texts; nil if any text is allowed.
    package let choices: [String]?
    package let meaning: String
    let more: String
}

/// The command-line option of a key.
package struct CommandOption: Sendable {
    package enum Completion: Sendable, Equatable {
        case none
        case directory
        case file
        case tomlFile
    }

    /// The single-letter name, if any.
    package let short: Character?
    /// Nil for the key's own name.
    package let long: String?
    /// The placeholder for the value in the help; nil for a switch, or for the key's choices.
    package let value: String?
    package let completion: Completion
    /// Words that completions offer. The file accepts more.
    package let words: [String]?
    /// Replaces the key's meaning in the help. Markdown.
    package let help: String?
    /// Whether it may be given more than once.
    package let repeats: Bool
    /// Whether it is a positional argument.
    package let isArgument: Bool

    init(
        short: Character? = nil, long: String? = nil, value: String? = nil, completion: Completion = .none,
        words: [String]? = nil, help: String? = nil, repeats: Bool = false
    ) {
        self.short = short
        self.long = long
        self.value = value
        self.completion = completion
        self.words = words
        self.help = help
        self.repeats = repeats
        self.isArgument = false
    }

    private init(argument: String) {
        self.short = nil
        self.long = nil
        self.value = argument
        self.completion = .none
        self.words = nil
        self.help = nil
        self.repeats = false
        self.isArgument = true
    }

    /// A positional argument, such as `BACKEND`.
    static func argument(_ name: String) -> Self { Self(argument: name) }
}

extension KeyDescription {
    /// `listen` of `--listen`.
    package var longOption: String { self.option?.long ?? self.name }

    /// The place in error messages.
    var optionPlace: String {
        if let option = self.option, option.isArgument { return "argument \(option.value ?? "")" }
        return "option --\(self.longOption)"
    }

    /// The text in `--help`: one sentence, and the default.
    package var help: String {
        let markdown = self.option?.help ?? self.meaning
        let text = PlainText.of(markdown)
        let sentence = markdown.hasPrefix("`") ? text : text.prefix(1).uppercased() + text.dropFirst()
        let repeats = self.option?.repeats == true ? "; may be repeated" : ""
        return "\(sentence)\(repeats).\(self.hasDefaultInHelp ? " (default: \(PlainText.of(self.standard)))" : "")"
    }

    /// A separate help text already mentions the default, unless that is a plain value.
    private var hasDefaultInHelp: Bool {
        let isValue = self.standard.hasPrefix("`")
        guard self.option?.help == nil || isValue else { return false }
        return !["–", "required", "`false`", "`0`"].contains(self.standard)
    }

    /// The row of the document.
    ///
    /// - Parameter hasOptions: whether the table has a column for options.
    func row(hasOptions: Bool) -> String {
        var cells = ["`\(self.name)`", self.type.rawValue, self.standard]
        if hasOptions { cells.append(self.optionCell) }
        return "| " + (cells + [self.meaning + self.more]).joined(separator: " | ") + " |"
    }

    private var optionCell: String {
        guard let option = self.option else { return "–" }
        if option.isArgument { return option.value ?? "" }
        return ((option.short.map { ["`-\($0)`"] } ?? []) + ["`--\(self.longOption)`"]).joined(separator: ", ")
    }
}

/// Markdown without links and code marks.
private enum PlainText {
    /// Replaces `[text](target)` by `text`, and removes the marks of code.
    static func of(_ markdown: String) -> String {
        var result = ""
        var rest = markdown[...]
        while let open = rest.firstIndex(of: "["), let middle = rest[open...].firstRange(of: "]("),
            let close = rest[middle.upperBound...].firstIndex(of: ")")
        {
            result += rest[..<open] + rest[rest.index(after: open)..<middle.lowerBound]
            rest = rest[rest.index(after: close)...]
        }
        return (result + rest).replacing("`", with: "")
    }
}
