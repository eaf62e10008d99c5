import Glibc

/// The control socket of a gateway, for `diglett-server ctl`.
package struct ControlSettings: Equatable, Sendable {
    /// The path of the unix socket; nil for none.
    package let path: String?
    /// The group that may connect in addition to the gateway's own user; nil for none.
    package let group: UInt32?
    /// Whether the operator set the path. Failing to create the socket is then an error.
    package let isExplicit: Bool

    private static let file = "control.sock"
    /// The runtime directory of the gateway's unit.
    private static let serviceDirectory = "/run/diglett-server"

    static func isOfService(_ path: String) -> Bool {
        StartNeed.directory(of: path) == .directory(self.serviceDirectory)
    }

    /// - Parameter given: a path, `none`, or nil for the runtime directory of the service or else the state directory.
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

    /// The possible paths of a gateway's socket, and the given value, which may be `none` or a relative path.
    package struct Places: Sendable {
        package let paths: [String]
        package let given: String?
    }

    /// The possible paths of a gateway's socket by its command line and configuration file, the likeliest first.
    ///
    /// - Parameter isNamed: whether the state directory was set. Then only the gateway of that directory is meant, and
    ///   the command must not reach a different one. The service's gateway has its socket in its runtime directory.
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

/// Groups of this machine.
enum Group {
    /// - Parameter text: the group's name or number.
    static func number(_ text: String, place: String) throws(SettingsError) -> UInt32 {
        if let number = UInt32(text) {
            // chown(2) takes this number as "no change".
            guard number != UInt32.max else { throw SettingsError(place, "\(number) is not a group number") }
            return number
        }
        guard let entry = getgrnam(text) else { throw SettingsError(place, "unknown group '\(text)'") }
        return entry.pointee.gr_gid
    }
}
