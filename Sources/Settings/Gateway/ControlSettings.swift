import Glibc

/// Where a running gateway is seen and steered: `diglett-server ctl`.
package struct ControlSettings: Equatable, Sendable {
    /// Of the unix socket; nil: there is none.
    package let path: String?
    /// Who may use it besides the gateway's own user.
    package let group: UInt32?
    /// Whether the operator named the path, and so wants an error when it cannot be had.
    package let isExplicit: Bool

    private static let file = "control.sock"
    /// Where the gateway's unit puts it.
    private static let serviceDirectory = "/run/diglett-server"

    static func isOfService(_ path: String) -> Bool {
        StartNeed.directory(of: path) == .directory(self.serviceDirectory)
    }

    /// - Parameter given: a path, `none`, or nil for the service's runtime directory, else the state directory.
    init(_ given: String?, group: UInt32?, stateDirectory: String, place: String) throws(SettingsError) {
        self.group = group
        self.isExplicit = given != nil
        switch given {
        case "none": self.path = nil
        case .some(let path):
            guard path.hasPrefix("/"), path.utf8.count <= UnixPath.longest else {
                throw SettingsError(
                    place,
                    "'\(path)': write an absolute path of at most \(UnixPath.longest) characters (unix(7)), or none")
            }
            self.path = path
        case nil: self.path = "\(Self.runtimeDirectory ?? stateDirectory)/\(Self.file)"
        }
    }

    /// Where a gateway's socket may be, and what was given for it, which may be no whole path.
    package struct Places: Sendable {
        package let paths: [String]
        package let given: String?
    }

    /// Where a gateway's socket may be, as far as its own command line and file tell, the likeliest first.
    ///
    /// - Parameter isNamed: whether the state directory was named. Then only its own gateway is meant, and no other is
    ///   steered in its place; the service's gateway has its socket in its runtime directory.
    static func places(_ given: String?, stateDirectory: String?, isNamed: Bool) -> [String] {
        if let given { return [given] }
        if isNamed, let stateDirectory, !StateDirectory.isOfService(stateDirectory, program: "diglett-server") {
            return [self.runtimeDirectory, stateDirectory].compactMap(\.self).map { "\($0)/\(self.file)" }
        }
        let service = "\(self.serviceDirectory)/\(self.file)"
        let own = [self.runtimeDirectory, stateDirectory].compactMap { $0.map { "\($0)/\(self.file)" } }
        return own.filter { $0 != service } + [service]
    }

    /// systemd's RuntimeDirectory= (systemd.exec(5)).
    private static var runtimeDirectory: String? {
        guard let value = getenv("RUNTIME_DIRECTORY") else { return nil }
        let first = String(cString: value).prefix { $0 != ":" }
        return first.hasPrefix("/") ? String(first) : nil
    }
}

/// A group of this machine.
enum Group {
    /// - Parameter text: its name or number.
    static func number(_ text: String, place: String) throws(SettingsError) -> UInt32 {
        if let number = UInt32(text) {
            // chown(2) takes it for "no change".
            guard number != UInt32.max else { throw SettingsError(place, "\(number) is not a group number") }
            return number
        }
        guard let entry = getgrnam(text) else { throw SettingsError(place, "unknown group '\(text)'") }
        return entry.pointee.gr_gid
    }
}
