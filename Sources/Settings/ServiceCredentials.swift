import Glibc

/// Files that the service manager hands to one service (systemd.exec(5), LoadCredential=), in `$CREDENTIALS_DIRECTORY`.
package enum ServiceCredentials {
    /// Where a credential is; nil when it was not handed over.
    package static func path(of name: String) -> String? {
        guard let directory = self.directory else { return nil }
        let path = "\(directory)/\(name)"
        return FileAccess.exists(path) ? path : nil
    }

    /// Whether a file is a credential, which can be read but not changed.
    static func contains(_ path: String) -> Bool {
        guard let directory = self.directory else { return false }
        return path.hasPrefix("\(directory)/")
    }

    /// Whether a credential is as the manager makes it: of the manager's or the service's user, on a mount of the
    /// service's own, and read-only. With an access list for the service's user its group seems to have the right to
    /// read as well (acl(5), the mask), which nobody but that user has.
    static func isPrivate(_ path: String, owner: uid_t, mode: mode_t) -> Bool {
        self.contains(path) && (owner == 0 || owner == geteuid()) && mode & 0o337 == 0
    }

    private static var directory: String? {
        guard let text = getenv("CREDENTIALS_DIRECTORY").map({ String(cString: $0) }), text.hasPrefix("/") else {
            return nil
        }
        return text.hasSuffix("/") ? String(text.dropLast()) : text
    }
}
