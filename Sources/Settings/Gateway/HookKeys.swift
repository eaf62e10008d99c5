/// The keys of `[auth-exec]`, and of `[[registrar]]` with `kind = "exec"`.
package final class ExecKeys: KeyTable {
    package static let name = "exec"
    package static let keys = ExecKeys()

    let command = Key(
        "command", .command, missing: "'command' is missing: a list of the program's path and its arguments",
        "the absolute path of the program and its arguments; no shell is used")
    let timeout = ExecKeys.timeout("seconds, 0.1 to 9, after which the program and its process group are killed")

    /// At most 9 seconds, so the gateway's own deadline of 10 seconds never passes first.
    static func timeout(_ meaning: String) -> Key<UInt64> {
        Key("timeout", .seconds(0.1...9), default: 5_000, meaning)
    }
}

/// The keys of `[auth-webhook]`, and of `[[registrar]]` with `kind = "webhook"`.
package final class WebhookKeys: KeyTable {
    package static let name = "webhook"
    package static let keys = WebhookKeys()

    let url = Key(
        "url",
        Form<String>.text.map { text, place, _ throws(SettingsError) in
            try WebhookSettings.check(url: text, place: place)
            return text
        }, missing: "'url' is missing: the address of the web service",
        "`https://...`; `http://` only for an address of this machine (`localhost`, `127.0.0.0/8`, `[::1]`); no user "
            + "and password")
    let secretFile = Key(
        "secret-file",
        Form<String>.path.map { path, place, _ throws(SettingsError) in
            do throws(SettingsError) { return try WebhookSettings.secret(in: path) } catch {
                throw SettingsError(place, error.description)
            }
        },
        "a file whose content is sent as `Authorization: Bearer`, without surrounding white space; readable only by "
            + "its owner")
    let ca = Key(
        "ca", .readableFile(isSecret: false), shown: "the system's",
        "trusted certificate authorities for the service's certificate, PEM")
    let cert = Key("cert", .readableFile(isSecret: false), "a client certificate, PEM; needs `key`")
    let key = Key("key", .readableFile(isSecret: true), "its key, PEM, readable only by its owner")
    let timeout = ExecKeys.timeout("seconds for all attempts, 0.1 to 9")
    let retries = Key(
        "retries", .count(0...10), default: 2, "retries after a timeout, a lost connection or 5xx, 0 to 10")
}

extension Form where Value == String {
    /// The path of a readable file.
    ///
    /// - Parameter isSecret: whether to reject a file that users other than its owner can read.
    static func readableFile(isSecret: Bool) -> Self {
        Self.path.map { path, place, _ throws(SettingsError) in
            do throws(SettingsError) { _ = try FileAccess.read(path, atMost: 1 << 20, secret: isSecret) } catch {
                throw SettingsError(place, error.description)
            }
            return path
        }
    }
}
