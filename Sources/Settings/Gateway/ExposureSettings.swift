/// The public ports that names may use.
package enum PublicPorts: Equatable, Sendable {
    case any
    case range(PortRange)
    /// Names have unix sockets and no public ports.
    case none

    init(_ text: String, place: String) throws(SettingsError) {
        self = text == "none" ? .none : .range(try PortRange(text, place: place))
    }

    package var range: PortRange? {
        if case .range(let range) = self { range } else { nil }
    }
}

/// A unix socket for each name, in addition to its public port or instead of it. A proxy on the same machine uses it to
/// reach names that other programs there cannot reach.
package struct SocketSettings: Equatable, Sendable {
    /// The path of a socket is `DIRECTORY/NAME.sock`.
    package let directory: String
    /// The number of the group that may connect in addition to the gateway's own user; nil for none.
    package let group: UInt32?

    /// A name has up to 63 bytes.
    private static let longestDirectory = UnixPath.longest - "/".utf8.count - 63 - suffix.utf8.count
    package static let suffix = ".sock"

    init(directory: String, group: UInt32?, place: String) throws(SettingsError) {
        let isPlain = directory.utf8.allSatisfy { byte in
            // Proxies parse the path in their configuration files, each with its own quoting rules.
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

/// Which listeners names have, by the gateway's settings.
struct ExposurePaths {
    let hasPorts: Bool
    let hasSockets: Bool
}
