/// Which public ports names may have.
package enum PublicPorts: Equatable, Sendable {
    case any
    case range(PortRange)
    /// Names are reached by unix sockets only.
    case none

    init(_ text: String, place: String) throws(SettingsError) {
        self = text == "none" ? .none : .range(try PortRange(text, place: place))
    }

    package var range: PortRange? {
        if case .range(let range) = self { range } else { nil }
    }
}

/// A unix socket for each name, beside its public port or instead of it: how a proxy on the same machine reaches names
/// that nobody else on it may reach.
package struct SocketSettings: Equatable, Sendable {
    /// A socket is `DIRECTORY/NAME.sock`.
    package let directory: String
    /// Who may connect besides the gateway's own user: the group with this number.
    package let group: UInt32?

    /// A name has up to 63 bytes.
    private static let longestDirectory = UnixPath.longest - "/".utf8.count - 63 - suffix.utf8.count
    package static let suffix = ".sock"

    init(directory: String, group: UInt32?, place: String) throws(SettingsError) {
        let isPlain = directory.utf8.allSatisfy { byte in
            // Proxies read the path in their own configurations, with their own rules of quoting.
            (0x30...0x39).contains(byte) || (0x41...0x5A).contains(byte) || (0x61...0x7A).contains(byte)
                || "/._-".utf8.contains(byte)
        }
        guard directory.hasPrefix("/"), !directory.hasSuffix("/"), isPlain else {
            throw SettingsError(
                place, "'\(directory)' is not usable: write an absolute path of letters, digits and / . _ - only")
        }
        guard directory.utf8.count <= Self.longestDirectory else {
            throw SettingsError(
                place,
                "'\(directory)' is too long: unix(7) leaves \(Self.longestDirectory) characters for it"
            )
        }
        self.directory = directory
        self.group = group
    }
}

/// How a proxy can reach names, as far as the gateway's settings go.
struct ExposurePaths {
    let hasPorts: Bool
    let hasSockets: Bool
}
