internal import Wire

/// A host and a port, written as `host:port`, `192.0.2.1:80` or `[2001:db8::1]:80`.
package struct HostPort: Hashable, Sendable, CustomStringConvertible {
    package let host: String
    package let port: UInt16

    package init(host: String, port: UInt16) {
        self.host = host
        self.port = port
    }

    /// - Parameter defaultPort: used if the text has no port; nil makes the port mandatory.
    /// - Returns: nil if the text does not have one of the forms above.
    package init?(_ text: String, defaultPort: UInt16? = nil) {
        var host = text
        var port = defaultPort
        if text.hasPrefix("[") {
            guard let end = text.lastIndex(of: "]") else { return nil }
            host = String(text[text.index(after: text.startIndex)..<end])
            let rest = text[text.index(after: end)...]
            guard host.contains(":") else { return nil }
            if !rest.isEmpty {
                guard rest.hasPrefix(":"), let number = Self.port(rest.dropFirst()) else { return nil }
                port = number
            }
        } else if let colon = text.lastIndex(of: ":") {
            host = String(text[..<colon])
            // More than one colon without brackets: an IPv6 address, whose port would be ambiguous.
            guard !host.contains(":"), let number = Self.port(text[text.index(after: colon)...]) else { return nil }
            port = number
        }
        guard let port, !host.isEmpty, host.utf8.count <= 253, host.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F }) else {
            return nil
        }
        self.host = host
        self.port = port
    }

    /// Whether a text has the form of a host name (RFC 952) or of an IPv4 or IPv6 address, optionally with a zone. `_`
    /// is allowed because it is common in container names.
    package static func isHost(_ text: String) -> Bool {
        (1...253).contains(text.utf8.count) && !text.hasPrefix("-")
            && text.utf8.allSatisfy { byte in
                (0x30...0x39).contains(byte) || (0x41...0x5A).contains(byte) || (0x61...0x7A).contains(byte)
                    || (text.contains(":") ? ".:%" : ".-_").utf8.contains(byte)
            }
    }

    package var description: String {
        self.host.contains(":") ? "[\(self.host)]:\(self.port)" : "\(self.host):\(self.port)"
    }

    /// Whether the host is written as one of this machine: `localhost`, or an address that is `IPAddress.isLoopback`.
    package var isLoopback: Bool { self.address?.isLoopback ?? false }

    /// Whether the host is the wildcard address: 0.0.0.0 or ::.
    var isAny: Bool { self.address?.isAny ?? false }

    /// The form that a listener uses: an address in its canonical notation. A host name is not changed.
    package var canonical: HostPort {
        HostPort(host: self.address?.host ?? self.host, port: self.port)
    }

    /// Nil for a host name. `localhost` is always 127.0.0.1, not what a resolver returns.
    private var address: WireAddress? {
        let isLocal = self.host.lowercased() == "localhost"
        return WireAddress(host: (isLocal ? "127.0.0.1" : self.host).utf8, port: self.port)?.unmapped
    }

    /// Whether the two cannot be bound together: they are equal, or one is the wildcard address of the other's family.
    package func excludes(_ other: HostPort) -> Bool {
        // The system assigns different ports to listeners on port 0.
        guard self.port == other.port, self.port != 0 else { return false }
        guard let one = self.address, let two = other.address else { return self.host == other.host }
        return one == two || one.family == two.family && (one.isAny || two.isAny)
    }

    /// A port number, 0 included.
    package static func port(_ text: some StringProtocol) -> UInt16? {
        guard (1...5).contains(text.count), text.utf8.allSatisfy({ (0x30...0x39).contains($0) }) else { return nil }
        return UInt16(text)
    }
}

/// Limits on paths of unix sockets.
enum UnixPath {
    /// Maximum length in bytes: sockaddr_un holds 107 and a zero byte (unix(7)).
    static let longest = 107
}

/// The address of a backend: `HOST:PORT`, `PORT` (on localhost) or `unix:PATH`.
package enum BackendAddress: Hashable, Sendable, CustomStringConvertible {
    case tcp(HostPort)
    case unix(path: String)

    static let unixPrefix = "unix:"

    package init(_ text: String, place: String) throws(SettingsError) {
        if text.hasPrefix(Self.unixPrefix) {
            let path = String(text.dropFirst(Self.unixPrefix.count))
            guard !path.isEmpty, path.utf8.count <= UnixPath.longest, !path.utf8.contains(0) else {
                throw SettingsError(
                    place, "'\(text)' is not a backend: the path of a unix socket has 1 to \(UnixPath.longest) bytes")
            }
            self = .unix(path: path)
        } else if let port = HostPort.port(text), port > 0 {
            self = .tcp(HostPort(host: "localhost", port: port))
        } else if let hostPort = HostPort(text), hostPort.port > 0 {
            self = .tcp(hostPort)
        } else {
            throw SettingsError(place, "'\(text)' is not a backend: \(AddressFault.backendReason(text))")
        }
    }

    package var description: String {
        switch self {
        case .tcp(let hostPort): hostPort.description
        case .unix(let path): "unix:\(path)"
        }
    }
}

/// The value of `-g`: `HOST`, `HOST:PORT`, or everything in one line, `diglett://TOKEN@HOST:PORT#sha256/PIN`.
package struct GatewayAddress: Equatable, Sendable {
    package let hostPort: HostPort
    package let token: String?
    package let pins: [String]

    package init(_ text: String, defaultPort: UInt16, place: String) throws(SettingsError) {
        let scheme = "diglett://"
        var rest = text[...]
        var pins: [String] = []
        var token: String?
        if text.hasPrefix(scheme) {
            rest = rest.dropFirst(scheme.count)
            if let hash = rest.firstIndex(of: "#") {
                pins = [String(rest[rest.index(after: hash)...])]
                rest = rest[..<hash]
            }
            if let at = rest.lastIndex(of: "@") {
                token = String(rest[..<at])
                rest = rest[rest.index(after: at)...]
            }
            if rest.hasSuffix("/") { rest = rest.dropLast() }
        } else if text.contains("@") || AgentToken.looksLikeOne(text) {
            // Otherwise the token would be resolved as a host name or part of one, and name servers would see it.
            throw SettingsError(
                place, "an address with a token begins with diglett://, write diglett://TOKEN@HOST:PORT")
        }
        guard let hostPort = HostPort(String(rest), defaultPort: defaultPort), hostPort.port > 0 else {
            // Without the token, which is before the host. Without an '@', it may be anywhere.
            if text.hasPrefix(scheme), token == nil {
                throw SettingsError(place, "not a gateway address: write diglett://TOKEN@HOST:PORT#sha256/PIN")
            }
            let reason = AddressFault.reason(
                String(rest), isPortNeeded: false, form: "HOST, HOST:PORT or diglett://TOKEN@HOST:PORT#sha256/PIN")
            throw SettingsError(place, "'\(rest)' is not a gateway address: \(reason)")
        }
        guard !AgentToken.looksLikeOne(hostPort.host) else {
            throw SettingsError(place, "the token is where the host should be, write diglett://TOKEN@HOST:PORT")
        }
        self.hostPort = hostPort
        self.token = token
        self.pins = pins
    }
}

/// A range of ports, `LOW-HIGH` or a single port.
package struct PortRange: Equatable, Sendable, CustomStringConvertible {
    package let low: UInt16
    package let high: UInt16

    package var description: String { self.low == self.high ? "\(self.low)" : "\(self.low)-\(self.high)" }

    package init(_ text: String, place: @autoclosure () -> String) throws(SettingsError) {
        let parts = text.split(separator: "-", omittingEmptySubsequences: false)
        guard (1...2).contains(parts.count), let low = HostPort.port(parts[0]), low > 0,
            let high = HostPort.port(parts[parts.count - 1]), high >= low
        else {
            throw SettingsError(place(), "'\(text)' is not a port range: write LOW-HIGH, for example 30000-30100")
        }
        self.low = low
        self.high = high
    }

    package func contains(_ port: UInt16) -> Bool { port >= self.low && port <= self.high }
}
