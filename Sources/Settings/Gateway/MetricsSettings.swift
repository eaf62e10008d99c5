internal import Wire

/// Where and how a gateway serves its metrics.
package struct MetricsSettings: Equatable, Sendable {
    package enum Place: Equatable, Sendable, CustomStringConvertible {
        case tcp(HostPort)
        case unix(path: String)

        package var description: String {
            switch self {
            case .tcp(let hostPort): hostPort.description
            case .unix(let path): "unix:\(path)"
            }
        }
    }

    package let place: Place
    /// Whether series per name are included. Names come and go, and a collector keeps the series of all of them.
    package let isPerName: Bool

    /// - Parameter isOpen: whether addresses other than loopback are allowed.
    init(_ text: String, isPerName: Bool, isOpen: Bool, place: String) throws(SettingsError) {
        self.isPerName = isPerName
        if text.hasPrefix("unix:") {
            let path = String(text.dropFirst("unix:".count))
            guard path.hasPrefix("/"), !path.hasSuffix("/"), path.utf8.count <= UnixPath.longest,
                !path.utf8.contains(0)
            else {
                throw SettingsError(
                    place,
                    "'\(PeerText.escaped(text))': write the absolute path of the socket, at most \(UnixPath.longest) bytes"
                )
            }
            self.place = .unix(path: path)
            return
        }
        guard let hostPort = HostPort(text) else {
            throw SettingsError(
                place,
                "'\(PeerText.escaped(text))' is not an address to listen on: "
                    + AddressFault.reason(
                        text, isPortNeeded: true, lowestPort: 0, form: "HOST:PORT, [IPV6]:PORT or unix:PATH"))
        }
        guard hostPort.isLoopback || isOpen else {
            throw SettingsError(
                place,
                "\(hostPort) is not a loopback address, and anyone who reaches it could read the metrics, which have neither "
                    + "password nor encryption; put a proxy in front, or set metrics-insecure-ok")
        }
        self.place = .tcp(hostPort)
    }
}
