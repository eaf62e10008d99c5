/// One setting of a program, declared once.
///
/// The file reader and the command line read it by this; the tables of `docs/configuration.md`, the help, and with the
/// help completions and manual pages, describe it by this.
package struct Key<Value: Sendable>: DescribedKey {
    package let description: KeyDescription
    let form: Form<Value>
    /// The value of a key that is not given.
    let standard: Value
    /// What is wrong where the key is not given; nil where it need not be.
    let missing: String?

    /// - Parameters:
    ///   - shown: how the document writes the default; by itself where the form can.
    ///   - more: what follows `meaning` in the document only.
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

    /// One without a default.
    ///
    /// - Parameter missing: what is wrong where it is not given; nil where it need not be.
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

/// A key of any type, to describe it.
package protocol DescribedKey: Sendable {
    var description: KeyDescription { get }
}

/// What a key is called, and what users read about it. Texts are Markdown on one line.
package struct KeyDescription: Sendable {
    package let name: String
    package let type: ValueType
    /// The default.
    package let standard: String
    /// Nil where the command line has none of the same meaning.
    package let option: CommandOption?
    /// The texts that the value can be; nil where it can be others.
    package let choices: [String]?
    package let meaning: String
    let more: String
}

/// The option of the same meaning.
package struct CommandOption: Sendable {
    package enum Completion: Sendable, Equatable {
        case none
        case directory
        /// These texts; a file can have others.
        case words([String])
        /// With one of these extensions; with any if there are none.
        case file([String])
    }

    /// A single letter; nil for none.
    package let short: Character?
    /// Nil for the key's own name.
    package let long: String?
    /// What stands for its value in the help; nil for the choices of the key, or for a switch.
    package let value: String?
    package let completion: Completion
    /// Markdown; what the help says instead of the key's meaning.
    package let help: String?
    /// Whether it may be given more than once.
    package let repeats: Bool
    /// Whether it is an argument, without a name.
    package let isArgument: Bool

    init(
        short: Character? = nil, long: String? = nil, value: String? = nil, completion: Completion = .none,
        help: String? = nil, repeats: Bool = false
    ) {
        self.short = short
        self.long = long
        self.value = value
        self.completion = completion
        self.help = help
        self.repeats = repeats
        self.isArgument = false
    }

    private init(argument: String) {
        self.short = nil
        self.long = nil
        self.value = argument
        self.completion = .none
        self.help = nil
        self.repeats = false
        self.isArgument = true
    }

    /// An argument, `BACKEND`.
    static func argument(_ name: String) -> Self { Self(argument: name) }
}

extension KeyDescription {
    /// `listen` of `--listen`.
    package var longOption: String { self.option?.long ?? self.name }

    /// How an error names the option.
    var optionPlace: String { self.option?.isArgument == true ? self.longOption : "option --\(self.longOption)" }

    /// What the help says of the option: one sentence, and the default.
    package var help: String {
        let markdown = self.option?.help ?? self.meaning
        let text = PlainText.of(markdown)
        let sentence = markdown.hasPrefix("`") ? text : text.prefix(1).uppercased() + text.dropFirst()
        let repeats = self.option?.repeats == true ? "; may be repeated" : ""
        return "\(sentence)\(repeats).\(self.hasDefaultInHelp ? " (default: \(PlainText.of(self.standard)))" : "")"
    }

    /// Words of its own for the help say the default themselves, unless it is a value.
    private var hasDefaultInHelp: Bool {
        let isValue = self.standard.hasPrefix("`")
        guard self.option?.help == nil || isValue else { return false }
        return !["–", "required", "`false`", "`0`"].contains(self.standard)
    }

    /// The row of the document.
    ///
    /// - Parameter hasOptions: whether the table has a column for them.
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

/// Markdown as a terminal shows it.
private enum PlainText {
    /// `[text](target)` is its text, and code has no marks.
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
