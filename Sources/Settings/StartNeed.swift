/// Something outside of a configuration that a start needs to be as it is written there.
package struct StartNeed: Equatable, Sendable {
    package enum Kind: Equatable, Sendable {
        /// A host to listen on, as it is written.
        case address(String)
        /// A directory that is there and can be written into.
        case directory(String)
        /// A file that is there and can be replaced, or nothing.
        case file(String)
        /// A directory that is there or can be made, and into which other users cannot put files.
        case ownDirectory(String)
        /// The same for state, see ``StateDirectory/check(_:forOther:)``.
        case stateDirectory(String)
        /// An address that nobody listens on yet.
        case listener(HostPort)
        /// Certificates of authorities, in PEM form.
        case authorities(String)
        /// A certificate and its key, which others cannot read, in PEM form.
        case identity(certificate: String, key: String)
    }

    package let kind: Kind
    /// `file:line` or an option, for the texts of errors.
    package let place: String

    /// Checks directories and files. The programs check the other kinds.
    ///
    /// - Returns: a directory whose permissions could not be checked.
    package func checkFiles() throws(SettingsError) -> String? {
        switch self.kind {
        case .directory(let path): return try self.unseen(FileAccess.writability(path), path)
        case .ownDirectory(let path), .stateDirectory(let path):
            let parent = FileAccess.nearestExisting(path)
            let unseen = try self.unseen(FileAccess.writability(parent), parent)
            guard parent == path else { return unseen }
            do throws(SettingsError) {
                if case .stateDirectory = self.kind {
                    try StateDirectory.check(path, forOther: true)
                } else {
                    try FileAccess.checkOwnDirectory(path, forOther: true)
                }
            } catch {
                throw SettingsError(self.place, "cannot use the directory \(path): \(error.reason)")
            }
            return unseen
        case .file(let path):
            guard !FileAccess.isOtherThanRegular(path) else {
                throw SettingsError(self.place, "'\(path)' cannot be written: it is not a regular file")
            }
        case .address, .listener, .authorities, .identity: break
        }
        return nil
    }

    private func unseen(_ writability: FileAccess.Writability, _ path: String) throws(SettingsError) -> String? {
        switch writability {
        case .yes: return nil
        case .unknown: return path
        case .no(let reason): throw SettingsError(self.place, "cannot use the directory \(path): \(reason)")
        }
    }

    /// A note about unchecked directories; nil if all were checked.
    ///
    /// - Parameters:
    ///   - directories: as from ``checkFiles()``.
    ///   - program: whose user may not be this one.
    package static func note(unseen directories: [String], program: String) -> String? {
        guard !directories.isEmpty else { return nil }
        let list = Set(directories).sorted().joined(separator: ", ")
        return "not checked, because this is root: whether the \(program)'s user may write to \(list)"
    }

    /// The directory in which a file is.
    static func directory(of file: String) -> Kind {
        guard let slash = file.lastIndex(of: "/") else { return .directory(".") }
        return .directory(slash == file.startIndex ? "/" : String(file[..<slash]))
    }
}
