internal import Wire

/// The type of a value, as `docs/configuration.md` names it.
package enum ValueType: String, Sendable {
    case text
    case textOrList = "text or list"
    case wholeNumber = "whole number"
    case number
    case trueOrFalse = "true or false"
    case table
    case tables
}

/// Reads the values of a key from a file or the command line.
///
/// An error that leaves part of the value usable, such as one bad element of a list, is added to `Problems`. Other
/// errors are thrown.
struct Form<Value: Sendable>: Sendable {
    typealias FileReader = @Sendable (TOMLFile.Section, _ key: String, Problems) throws(SettingsError) -> Value?
    /// - Parameters:
    ///   - texts: the values of the option; never empty.
    ///   - place: the option, for errors.
    typealias OptionReader = @Sendable (_ texts: [String], _ place: String, Problems) throws(SettingsError) -> Value?

    let type: ValueType
    /// Returns nil if the file does not have the key.
    let file: FileReader
    /// Traps for a form without an option.
    let option: OptionReader
    /// Formats a default for the document; nil if it needs words.
    let shown: @Sendable (Value) -> String?
    /// The allowed texts, for help and completions; nil if any text is allowed.
    var choices: [String]?
    /// Combines the values of command line and file.
    var joined: @Sendable (_ option: Value, _ file: Value) -> Value = { option, _ in option }

    init(
        _ type: ValueType, file: @escaping FileReader,
        option: @escaping OptionReader = { _, place, _ in preconditionFailure("\(place) has no form") },
        shown: @escaping @Sendable (Value) -> String? = { _ in nil }
    ) {
        self.type = type
        self.file = file
        self.option = option
        self.shown = shown
    }

    /// A form with converted values.
    ///
    /// - Parameter convert: receives the place of the value, for errors.
    func map<New>(
        shown: @escaping @Sendable (New) -> String? = { _ in nil },
        _ convert: @escaping @Sendable (Value, _ place: String, Problems) throws(SettingsError) -> New?
    ) -> Form<New> {
        let (file, option) = (self.file, self.option)
        var form = Form<New>(
            self.type,
            file: { section, key, problems throws(SettingsError) in
                guard let value = try file(section, key, problems) else { return nil }
                return try convert(value, section.place(of: key), problems)
            },
            option: { texts, place, problems throws(SettingsError) in
                guard let value = try option(texts, place, problems) else { return nil }
                return try convert(value, place, problems)
            }, shown: shown)
        form.choices = self.choices
        return form
    }

    var optional: Form<Value?> {
        let shown = self.shown
        return self.map(shown: { $0.flatMap { shown($0) } }, { value, _, _ in .some(value) })
    }
}

extension Form where Value == String {
    static let text = Self(
        .text, file: { section, key, _ throws(SettingsError) in try section.string(key) },
        option: { texts, _, _ in texts.last }, shown: { "`\($0)`" })

    /// A path. In a file it is relative to the file's directory.
    static let path = Self(
        .text,
        file: { section, key, _ throws(SettingsError) in
            let path = try section.path(key)
            guard path != "" else { throw SettingsError(section.place(of: key), "'\(key)' is empty: write a path") }
            return path
        },
        option: { texts, place, _ throws(SettingsError) in
            guard texts.last != "" else { throw SettingsError(place, "is empty: write a path") }
            return texts.last
        })
}

extension Form where Value == [String] {
    static let texts = Self(
        .textOrList, file: { section, key, _ throws(SettingsError) in try section.strings(key) },
        option: { texts, _, _ in texts })

    /// A program and its arguments.
    static let command = Self.texts.map { words, place, _ throws(SettingsError) in
        guard let program = words.first else {
            throw SettingsError(place, "is empty: write a list of the program's path and its arguments")
        }
        guard program.hasPrefix("/") else {
            throw SettingsError(place, "'\(program)': write the program's absolute path")
        }
        guard FileAccess.isExecutable(program) else {
            throw SettingsError(place, "'\(program)' is not an executable file")
        }
        return words
    }
}

extension Form where Value == Bool {
    /// As an option it has no value and can only switch on.
    static let onOff = Self(
        .trueOrFalse, file: { section, key, _ throws(SettingsError) in try section.boolean(key) },
        option: { _, _, _ in true }, shown: { "`\($0)`" })
}

extension Form where Value == Int {
    static func count(_ range: ClosedRange<Int>) -> Self {
        Self(
            .wholeNumber,
            file: { section, key, _ throws(SettingsError) in try section.count(key, in: range) },
            option: { texts, place, _ throws(SettingsError) in
                guard let text = texts.last else { return nil }
                guard let count = Int(text), range.contains(count) else {
                    throw SettingsError(
                        place,
                        "'\(PeerText.escaped(text))' is not a number from \(range.lowerBound) to \(range.upperBound)")
                }
                return count
            }, shown: { "`\($0)`" })
    }

    /// As an option it can be repeated, up to the highest level. The higher value of option and file applies.
    static func level(_ range: ClosedRange<Int>) -> Self {
        let count = Self.count(range)
        var form = Self(
            .wholeNumber, file: count.file, option: { texts, _, _ in min(texts.count, range.upperBound) },
            shown: count.shown)
        form.joined = { max($0, $1) }
        return form
    }

    /// Bytes: `256M`.
    static func size(_ range: ClosedRange<Int>) -> Self {
        Self(
            .text, file: { section, key, _ throws(SettingsError) in try section.byteCount(key, in: range) },
            shown: { "`\(SizeText.of($0))`" })
    }
}

extension Form where Value == UInt64 {
    /// Milliseconds, written `30s` or `5m`.
    ///
    /// - Parameter canBeNever: whether `0` is allowed too; it is returned as 0.
    static func duration(_ range: ClosedRange<UInt64>, canBeNever: Bool = false) -> Self {
        Self(
            .text,
            file: { section, key, _ throws(SettingsError) in
                try section.duration(key, in: range, canBeNever: canBeNever)
            }, shown: { $0 == 0 ? "`0`" : "`\(DurationText.of($0))`" })
    }

    /// Milliseconds, written as a number of seconds.
    ///
    /// - Parameter range: in seconds.
    static func seconds(_ range: ClosedRange<Double>) -> Self {
        Self(
            .number,
            file: { section, key, _ throws(SettingsError) in
                guard let seconds = try section.number(key) else { return nil }
                guard range.contains(seconds) else {
                    let (least, atMost) = (NumberText.of(range.lowerBound), NumberText.of(range.upperBound))
                    throw SettingsError(
                        section.place(of: key), "'\(key)' is a number of seconds from \(least) to \(atMost)")
                }
                return UInt64(seconds * 1_000)
            }, shown: { "`\(NumberText.of(Double($0) / 1_000))`" })
    }
}

/// A number without the `.0` of a whole one.
private enum NumberText {
    static func of(_ number: Double) -> String {
        number.rounded() == number ? "\(Int(number))" : "\(number)"
    }
}

extension Form where Value: RawRepresentable & CaseIterable, Value.RawValue == String {
    /// One of the cases.
    static var choice: Self {
        let words = Value.allCases.map(\.rawValue)
        let list = words.dropLast().joined(separator: ", ")
        var form: Self = Form<String>.text.map(
            shown: { (value: Value) in "`\(value.rawValue)`" }
        ) { text, place, _ throws(SettingsError) -> Value? in
            guard let value = Value(rawValue: text) else {
                throw SettingsError(place, "'\(PeerText.escaped(text))' is neither \(list) nor \(words.last ?? "")")
            }
            return value
        }
        form.choices = words
        return form
    }
}

extension Form {
    /// A list. Each bad element is reported and left out.
    static func list<Element>(
        _ read: @escaping @Sendable (_ text: String, _ place: String) throws(SettingsError) -> Element
    ) -> Self where Value == [Element] {
        Form<[String]>.texts.map { texts, place, problems in
            texts.compactMap { text in
                problems.value(nil) { () throws(SettingsError) in try read(text, place) }
            }
        }
    }
}

extension Form where Value == [TOMLFile.Section] {
    /// The tables under `[[key]]`.
    static let tables = Self(
        .tables,
        file: { section, key, _ throws(SettingsError) in section.has(key) ? try section.sections(key) : nil })
}

extension Form where Value == TOMLFile.Section {
    /// The table under `[key]`.
    static let table = Self(.table, file: { section, key, _ throws(SettingsError) in try section.section(key) })
}
