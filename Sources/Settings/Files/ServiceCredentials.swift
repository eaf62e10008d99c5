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
    package static func contains(_ path: String) -> Bool {
        guard let directory = self.directory else { return false }
        return path.hasPrefix("\(directory)/")
    }

    /// Whether a credential is as the manager makes it: read-only, and not for others, on a mount that only the service's
    /// user may enter. Made with an access list for that user, it seems readable for a group as well (acl(5), the mask),
    /// and its owner is root, or nobody where the service has user numbers of its own (PrivateUsers=).
    static func isPrivate(_ path: String, mode: mode_t) -> Bool { self.contains(path) && mode & 0o337 == 0 }

    private static var directory: String? {
        guard let text = getenv("CREDENTIALS_DIRECTORY").map({ String(cString: $0) }), text.hasPrefix("/") else {
            return nil
        }
        return text.hasSuffix("/") ? String(text.dropLast()) : text
    }
}
