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

    /// The directory in which a file is.
    static func directory(of file: String) -> Kind {
        guard let slash = file.lastIndex(of: "/") else { return .directory(".") }
        return .directory(slash == file.startIndex ? "/" : String(file[..<slash]))
    }
}
