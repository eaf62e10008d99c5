import Glibc

/// Files that the service manager passes to one service (systemd.exec(5), LoadCredential=), in
/// `$CREDENTIALS_DIRECTORY`.
package enum ServiceCredentials {
    /// The path of a credential; nil if it was not passed.
    package static func path(of name: String) -> String? {
        guard let directory = self.directory else { return nil }
        let path = "\(directory)/\(name)"
        return FileAccess.exists(path) ? path : nil
    }

    /// Whether a file is a credential. Credentials can be read but not changed.
    package static func contains(_ path: String) -> Bool {
        guard let directory = self.directory else { return false }
        return path.hasPrefix("\(directory)/")
    }

    /// Whether a credential has the permissions that the service manager sets: read-only, no access for others, on a
    /// mount that only the service's user can enter. If access is by an access list for that user, the mode shows the
    /// group as a reader too (acl(5), the mask). The owner is root, or the user 'nobody' if the service has its own user namespace
    /// (PrivateUsers=).
    static func isPrivate(_ path: String, mode: mode_t) -> Bool { self.contains(path) && mode & 0o337 == 0 }

    private static var directory: String? {
        guard let text = getenv("CREDENTIALS_DIRECTORY").map({ String(cString: $0) }), text.hasPrefix("/") else {
            return nil
        }
        return text.hasSuffix("/") ? String(text.dropLast()) : text
    }
}
