internal import Wire

/// An agent's token, and the file from which it can be read again.
package struct LoginToken: Equatable, Sendable {
    /// Empty if the agent has no token.
    package let text: String
    /// Nil for a token from the command line, the environment or a pipe, which cannot change.
    package let file: String?
    /// Whether it was read from standard input or a pipe, and so cannot be read again.
    package private(set) var isReadOnce = false

    static let none = LoginToken(text: "", file: nil)

    /// A larger file is not a token. A token of version 1 may have this many bytes.
    private static let maxBytes = 4_096

    /// - Parameter place: where the token was found, for errors. Errors never repeat the token.
    init(_ given: String, file: String? = nil, place: String, isVersion1: Bool) throws(SettingsError) {
        let text = Self.cleaned(given)
        guard !text.isEmpty else { throw SettingsError(place, "is empty: it must hold the token") }
        if isVersion1 {
            // Version 1 accepts any text.
            guard text.utf8.count <= Self.maxBytes else {
                throw SettingsError(place, "a token of version 1 has at most \(Self.maxBytes) bytes")
            }
        } else {
            guard text.utf8.count <= Login.maximumToken, text.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F }) else {
                throw SettingsError(
                    place, "a token has at most \(Login.maximumToken) printable ASCII characters and no spaces")
            }
        }
        self.init(text: text, file: file)
    }

    private init(text: String, file: String?) {
        self.text = text
        self.file = file
    }

    /// Reads the token from a file, from standard input (`-`) or from a pipe.
    init(path: String, isVersion1: Bool) throws(SettingsError) {
        let isInput = path == "-"
        let bytes =
            isInput
            ? try FileAccess.readStandardInput(atMost: Self.maxBytes)
            // A shell passes the output of a command as a pipe, /dev/fd/63.
            : try FileAccess.read(path, atMost: Self.maxBytes, secret: true, orPipe: true)
        try self.init(
            bytes, file: !isInput && FileAccess.isRegular(path) ? path : nil,
            place: isInput ? "standard input" : path, isVersion1: isVersion1)
        self.isReadOnce = self.file == nil
    }

    /// Whether an agent that was started with `other` needs no restart. A token file is read again at each login.
    func isSame(as other: LoginToken) -> Bool {
        self.file != nil && self.file == other.file || self.text == other.text
    }

    /// Reads the token of a file again. Unlike the first read it never blocks on a pipe.
    package static func read(again file: String, isVersion1: Bool) throws(SettingsError) -> LoginToken {
        let bytes = try FileAccess.read(file, atMost: self.maxBytes, secret: true)
        return try LoginToken(bytes, file: file, place: file, isVersion1: isVersion1)
    }

    private init(_ bytes: [UInt8], file: String?, place: String, isVersion1: Bool) throws(SettingsError) {
        try self.init(String(decoding: bytes, as: UTF8.self), file: file, place: place, isVersion1: isVersion1)
    }

    /// Removes what editors, shells and secret stores add around a token: white space, line ends, a byte order mark.
    private static func cleaned(_ text: String) -> String {
        // By scalars: Swift may combine a mark with the letter that follows it.
        func isAround(_ scalar: Unicode.Scalar) -> Bool { scalar.properties.isWhitespace || scalar == "\u{FEFF}" }
        var rest = text.unicodeScalars.drop(while: isAround)
        while let last = rest.last, isAround(last) { rest.removeLast() }
        return String(rest)
    }
}
