/// A hook: a program or web service of the operator that acts as authenticator or registrar (`docs/hooks.md`).
package enum HookSettings: Equatable, Sendable {
    case exec(ExecSettings)
    case webhook(WebhookSettings)
}

/// A program that is run for each request.
package struct ExecSettings: Equatable, Sendable {
    /// The program's path and its arguments; run without a shell.
    package let command: [String]
    /// Milliseconds.
    package let timeout: UInt64

    init(_ reader: SettingsReader) {
        self.command = reader.value(ExecKeys.keys.command) ?? [""]
        self.timeout = reader.value(ExecKeys.keys.timeout)
    }
}

/// A web service that receives requests by HTTP POST.
package struct WebhookSettings: Equatable, Sendable {
    package let url: String
    /// The URL for logs, without user info, query and fragment, which may be secret.
    package var shownURL: String { WebURL.shown(self.url) }
    /// Sent as `Authorization: Bearer`; empty for none.
    package let secret: String
    package let caFile: String?
    package let certificateFile: String?
    package let keyFile: String?
    /// Milliseconds, for all attempts together.
    package let timeout: UInt64
    /// Further attempts after one without a response, or with status 5xx.
    package let retries: Int

    init(_ reader: SettingsReader) {
        let keys = WebhookKeys.keys
        self.url = reader.value(keys.url) ?? ""
        self.secret = reader.value(keys.secretFile) ?? ""
        self.caFile = reader.value(keys.ca)
        self.certificateFile = reader.value(keys.cert)
        self.keyFile = reader.value(keys.key)
        if reader.isGiven(keys.cert) != reader.isGiven(keys.key) {
            reader.add(reader.isGiven(keys.key) ? keys.key : keys.cert, "'cert' and 'key' must be set together")
        }
        if let file = self.caFile { reader.problems.need(.authorities(file), at: reader.place(of: keys.ca)) }
        if let certificate = self.certificateFile, let key = self.keyFile {
            reader.problems.need(.identity(certificate: certificate, key: key), at: reader.place(of: keys.cert))
        }
        self.timeout = reader.value(keys.timeout)
        self.retries = reader.value(keys.retries)
    }

    /// The content of the file without leading and trailing white space.
    static func secret(in path: String) throws(SettingsError) -> String {
        let bytes = try FileAccess.read(path, atMost: 4_096, secret: true)
        guard let text = String(validating: bytes, as: UTF8.self) else {
            throw SettingsError(path, "contains no usable secret: it is not UTF-8 text")
        }
        var secret = text.unicodeScalars[...]
        while let first = secret.first, first.properties.isWhitespace { secret.removeFirst() }
        while let last = secret.last, last.properties.isWhitespace { secret.removeLast() }
        guard !secret.isEmpty else { throw SettingsError(path, "is empty: it must contain the secret") }
        let isPlain = secret.allSatisfy { scalar in
            // Format characters include the invisible byte order mark of some editors.
            !scalar.properties.isWhitespace && ![.control, .format].contains(scalar.properties.generalCategory)
        }
        guard isPlain else {
            throw SettingsError(
                path, "contains no usable secret: spaces, line breaks or control characters are not allowed")
        }
        return String(secret)
    }

    /// - Parameter place: where the URL was set, for errors. Errors leave out parts of the URL that may be secret.
    static func check(url: String, place: String) throws(SettingsError) {
        func refusal(_ reason: String) -> SettingsError { SettingsError(place, "'\(WebURL.shown(url))': \(reason)") }
        let known: WebURL
        do throws(WebURL.Mistake) { known = try WebURL(url) } catch WebURL.userInfo {
            throw refusal("\(WebURL.userInfo.reason): put the secret into a file and set 'secret-file'")
        } catch {
            throw refusal("\(error.reason); write https://..., or http:// for an address of this machine")
        }
        guard known.scheme == .https || known.isLoopback else {
            throw refusal("write https://..., or http:// for an address of this machine")
        }
    }
}

extension HookSettings {
    /// - Parameters:
    ///   - kind: `exec` or `webhook`.
    ///   - reader: reads the hook's table.
    init(kind: String, _ reader: SettingsReader) {
        if kind == "exec" {
            self = .exec(ExecSettings(reader))
            reader.finish(ExecKeys.self)
        } else {
            self = .webhook(WebhookSettings(reader))
            reader.finish(WebhookKeys.self)
        }
    }
}
