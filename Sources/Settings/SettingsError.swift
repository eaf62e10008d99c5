internal import Wire

/// An error in an argument, a file or a directory: the place, the reason, and if possible the remedy.
package struct SettingsError: Error, Equatable, Sendable, CustomStringConvertible {
    /// `option -g`, `diglett.toml:12`, `/var/lib/diglett/ports.json`, ...
    package let place: String
    package let reason: String
    /// For an unknown key, the keys that its table may have.
    package let knownKeys: [String]

    package init(_ place: String, _ reason: String, knownKeys: [String] = []) {
        self.place = Self.withoutControls(place)
        self.reason = Self.withoutControls(reason)
        self.knownKeys = knownKeys
    }

    package var description: String { "\(self.place): \(self.reason)" }

    /// The line in the file; 0 without one.
    fileprivate var line: Int { self.place.lastIndex(of: ":").flatMap { Int(self.place[$0...].dropFirst()) } ?? 0 }

    /// The place without the line.
    fileprivate var file: String {
        guard self.line > 0, let colon = self.place.lastIndex(of: ":") else { return self.place }
        return String(self.place[..<colon])
    }

    /// Whether the place is an option or an argument.
    var isOfCommandLine: Bool {
        self.place.hasPrefix("option -") || self.place.hasPrefix("argument ")
    }

    /// Escapes characters that could move the cursor, end a line or change the text direction as `\u{XX}`. Errors quote
    /// files and arguments, which can contain anything.
    package static func withoutControls(_ text: String) -> String {
        func isPlain(_ scalar: Unicode.Scalar) -> Bool {
            switch scalar.properties.generalCategory {
            case .control, .format, .lineSeparator, .paragraphSeparator: false
            default: true
            }
        }
        guard !text.unicodeScalars.allSatisfy(isPlain) else { return text }
        return text.unicodeScalars.map { isPlain($0) ? String($0) : PeerText.escaped(String($0)) }.joined()
    }
}

/// All errors of a configuration, never empty: those of the command line first, then each file's by line.
package struct SettingsErrors: Error, Equatable, Sendable, CustomStringConvertible {
    package let all: [SettingsError]

    package init(_ all: [SettingsError]) {
        precondition(!all.isEmpty, "no errors")
        // Files in the order in which they appear.
        var ranks: [String: Int] = [:]
        for error in all where ranks[error.file] == nil { ranks[error.file] = error.isOfCommandLine ? -1 : ranks.count }
        self.all = all.enumerated().sorted { one, two in
            (ranks[one.element.file] ?? 0, one.element.line, one.offset)
                < (ranks[two.element.file] ?? 0, two.element.line, two.offset)
        }.map(\.element)
    }

    /// Whether all errors are on the command line.
    package var areOfCommandLine: Bool { self.all.allSatisfy(\.isOfCommandLine) }

    /// One line for each error.
    package var description: String { self.all.map(\.description).joined(separator: "\n") }
}

/// Collects errors, so the user sees all of them at once.
final class Problems {
    private(set) var found: [SettingsError] = []
    /// What a start needs besides valid settings, for ``GatewaySettings/examine(_:)``.
    private(set) var needs: [StartNeed] = []

    /// False if the file is unreadable. The settings are then unknown, so needs derived from them would be meaningless.
    var takesNeeds = true

    func need(_ kind: StartNeed.Kind, at place: String) {
        if self.takesNeeds { self.needs.append(StartNeed(kind: kind, place: place)) }
    }

    func listener(_ address: HostPort, at place: String) {
        self.need(.address(address.host), at: place)
        self.need(.listener(address), at: place)
    }

    func add(_ place: String, _ reason: String) { self.found.append(SettingsError(place, reason)) }

    func add(_ error: SettingsError) { self.found.append(error) }

    func attempt(_ body: () throws(SettingsError) -> Void) {
        do throws(SettingsError) { try body() } catch { self.found.append(error) }
    }

    /// The result of `body`; if it throws, records the error and returns `harmless`.
    func value<Value>(_ harmless: Value, _ body: () throws(SettingsError) -> Value) -> Value {
        do throws(SettingsError) { return try body() } catch {
            self.found.append(error)
            return harmless
        }
    }

    func throwIfAny() throws(SettingsErrors) {
        if !self.found.isEmpty { throw SettingsErrors(self.found) }
    }
}
