/// A requirement of a start that is outside of the configuration, such as a writable directory.
package struct StartNeed: Equatable, Sendable {
    package enum Kind: Equatable, Sendable {
        /// A host to listen on, as written in the configuration.
        case address(String)
        /// An existing directory with write permission.
        case directory(String)
        /// A file that exists and can be replaced, or does not exist.
        case file(String)
        /// A directory that exists or can be created, and into which other users cannot put files.
        case ownDirectory(String)
        /// The same for a state directory, see ``StateDirectory/check(_:forOther:)``.
        case stateDirectory(String)
        /// An address that is not in use yet.
        case listener(HostPort)
        /// A PEM file with certificates of authorities.
        case authorities(String)
        /// PEM files of a certificate and of its key, which others must not be able to read.
        case identity(certificate: String, key: String)
    }

    package let kind: Kind
    /// `file:line` or an option, for errors.
    package let place: String

    /// Checks directories and files. The programs check the other kinds.
    ///
    /// - Returns: a directory whose permissions could not be checked; nil without one.
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
    ///   - directories: the results of ``checkFiles()``.
    ///   - program: the program whose user may differ from the current one.
    package static func note(unseen directories: [String], program: String) -> String? {
        guard !directories.isEmpty else { return nil }
        let list = Set(directories).sorted().joined(separator: ", ")
        return "not checked, because this is root: whether the \(program)'s user may write to \(list)"
    }

    /// The directory of a file.
    static func directory(of file: String) -> Kind {
        guard let slash = file.lastIndex(of: "/") else { return .directory(".") }
        return .directory(slash == file.startIndex ? "/" : String(file[..<slash]))
    }
}
