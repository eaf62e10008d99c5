/// A program or a web service of the operator's that answers questions or performs actions (`docs/modules.md`).
package enum HookSettings: Equatable, Sendable {
    case exec(ExecSettings)
    case webhook(WebhookSettings)
}

/// A program that is started for each question.
package struct ExecSettings: Equatable, Sendable {
    /// The program's path and its arguments; no shell is involved.
    package let command: [String]
    package let timeout: UInt64

    init(_ section: TOMLFile.Section, _ problems: Problems) {
        self.command = problems.value([""]) { () throws(SettingsError) in try section.command("command") }
        self.timeout = problems.milliseconds(section)
    }
}

/// A web service that is asked by HTTP POST.
package struct WebhookSettings: Equatable, Sendable {
    package let url: String
    /// The URL as it may be shown: what stands before `@`, behind `?` or behind `#` may be a secret.
    package var shownURL: String { WebURL.shown(self.url) }
    /// Sent as `Authorization: Bearer`; empty for none.
    package let secret: String
    package let caFile: String?
    package let certificateFile: String?
    package let keyFile: String?
    package let timeout: UInt64
    /// Further attempts after one that failed without an answer, or with 5xx.
    package let retries: Int

    init(_ section: TOMLFile.Section, _ problems: Problems) {
        self.url = problems.value("") { () throws(SettingsError) in try Self.url(section) }
        self.secret = problems.value("") { () throws(SettingsError) in
            guard let path = try section.path("secret-file") else { return "" }
            do throws(SettingsError) { return try Self.secret(in: path) } catch {
                throw SettingsError(section.place(of: "secret-file"), error.description)
            }
        }
        self.caFile = problems.value(nil) { () throws(SettingsError) in try section.readableFile("ca") }
        self.certificateFile = problems.value(nil) { () throws(SettingsError) in try section.readableFile("cert") }
        self.keyFile = problems.value(nil) { () throws(SettingsError) in try section.readableFile("key", secret: true) }
        if section.has("cert") != section.has("key") {
            problems.add(section.place(of: section.has("key") ? "key" : "cert"), "'cert' and 'key' belong together")
        }
        if let file = self.caFile { problems.need(.authorities(file), at: section.place(of: "ca")) }
        if let certificate = self.certificateFile, let key = self.keyFile {
            problems.need(.identity(certificate: certificate, key: key), at: section.place(of: "cert"))
        }
        self.timeout = problems.milliseconds(section)
        self.retries = problems.value(0) { () throws(SettingsError) in
            let retries = try section.integer("retries") ?? 2
            guard (0...10).contains(retries) else {
                throw SettingsError(section.place(of: "retries"), "'retries' is a number from 0 to 10")
            }
            return retries
        }
    }

    /// What is sent is what stands in the file, but for the blanks and line ends around it.
    private static func secret(in path: String) throws(SettingsError) -> String {
        let bytes = try FileAccess.read(path, most: 4_096, secret: true)
        guard let text = String(validating: bytes, as: UTF8.self) else {
            throw SettingsError(path, "holds no secret that can be sent: it is not a text in UTF-8")
        }
        var secret = text.unicodeScalars[...]
        while let first = secret.first, first.properties.isWhitespace { secret.removeFirst() }
        while let last = secret.last, last.properties.isWhitespace { secret.removeLast() }
        guard !secret.isEmpty else { throw SettingsError(path, "holds no secret") }
        let isPlain = secret.allSatisfy { scalar in
            // Format characters too: nobody sees the mark that some editors put at a file's beginning.
            !scalar.properties.isWhitespace && ![.control, .format].contains(scalar.properties.generalCategory)
        }
        guard isPlain else {
            throw SettingsError(
                path, "holds no secret that can be sent: blanks, line ends or control characters are inside of it")
        }
        return String(secret)
    }

    private static func url(_ section: TOMLFile.Section) throws(SettingsError) -> String {
        guard let url = try section.string("url") else {
            throw SettingsError(section.place(of: "url"), "a webhook needs a url")
        }
        let place = section.place(of: "url")
        func refusal(_ reason: String) -> SettingsError { SettingsError(place, "'\(WebURL.shown(url))': \(reason)") }
        let known: WebURL
        do throws(WebURL.Mistake) { known = try WebURL(url) } catch WebURL.userInfo {
            throw refusal("\(WebURL.userInfo.reason): put the secret into a file, and name that as 'secret-file'")
        } catch {
            throw refusal("\(error.reason): write https://..., or http:// for an address of this machine")
        }
        guard known.scheme == .https || known.isLoopback else {
            throw refusal("write https://..., or http:// for an address of this machine")
        }
        return url
    }
}

extension Problems {
    /// How long a program or a service may take.
    func milliseconds(_ section: TOMLFile.Section) -> UInt64 {
        let standard: UInt64 = 5_000
        return self.value(standard) { () throws(SettingsError) in
            try section.milliseconds("timeout", default: standard)
        }
    }
}

extension TOMLFile.Section {
    /// A program and its arguments.
    func command(_ key: String) throws(SettingsError) -> [String] {
        guard let words = try self.strings(key), let program = words.first else {
            throw SettingsError(
                self.place(of: key), "'\(key)' is missing: a list of the program's path and its arguments")
        }
        guard program.hasPrefix("/") else {
            throw SettingsError(self.place(of: key), "'\(program)': write the program's whole path, from /")
        }
        guard FileAccess.isExecutable(program) else {
            throw SettingsError(self.place(of: key), "'\(program)' is no program that can be started")
        }
        return words
    }

    /// Seconds in the file, from 0.1 to 9 so that the gateway's own deadline of 10 s is never met.
    func milliseconds(_ key: String, default value: UInt64) throws(SettingsError) -> UInt64 {
        guard let seconds = try self.number(key) else { return value }
        guard seconds >= 0.1, seconds <= 9 else {
            throw SettingsError(self.place(of: key), "'\(key)' is a number of seconds from 0.1 to 9")
        }
        return UInt64(seconds * 1_000)
    }

    func readableFile(_ key: String, secret: Bool = false) throws(SettingsError) -> String? {
        guard let path = try self.path(key) else { return nil }
        _ = try FileAccess.read(path, most: 1 << 20, secret: secret)
        return path
    }
}
