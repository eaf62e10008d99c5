internal import Wire

/// The address of a name for visitors: `HOST:PORT`, or an `http` or `https` URL.
///
/// A gateway sends it as text, and an agent passes it to scripts, which may use it on a command line. So the format is
/// strict: blanks, quotes, `$`, `;` and a leading `-` are not allowed, and neither is anything that two programs could
/// parse differently.
package struct PublicAddress: Equatable, Sendable, CustomStringConvertible {
    /// The allowed forms, for error messages.
    package static let form = "HOST:PORT or an http or https URL"
    /// Maximum length in bytes; a REGISTERED frame has room for more.
    static let longest = 512

    private enum Kind: Equatable {
        case hostPort(HostPort)
        case url(String)
    }

    private let kind: Kind

    /// Nil if the text has neither form.
    package init?(_ text: String) {
        guard (1...Self.longest).contains(text.utf8.count) else { return nil }
        if let hostPort = Self.hostPort(text) {
            self.kind = .hostPort(hostPort)
        } else if Self.isURL(text) {
            self.kind = .url(text)
        } else {
            return nil
        }
    }

    package var description: String {
        switch self.kind {
        case .hostPort(let hostPort): hostPort.description
        case .url(let text): text
        }
    }

    /// Whether only this machine can reach it. Always false for a URL, which an operator has written.
    package var isLoopback: Bool {
        if case .hostPort(let hostPort) = self.kind { hostPort.isLoopback } else { false }
    }

    /// The address as the agent's network reaches it. If the gateway listens on all addresses, or on loopback and was
    /// dialled as `localhost`, this is the host that the agent dialled.
    ///
    /// - Parameter gateway: the host that the agent dialled.
    package func seen(from gateway: String) -> String {
        guard case .hostPort(let hostPort) = self.kind, hostPort.isAny || hostPort.isLoopback && gateway == "localhost"
        else { return self.description }
        return HostPort(host: gateway, port: hostPort.port).description
    }

    private static func hostPort(_ text: String) -> HostPort? {
        guard let colon = text.utf8.lastIndex(of: UInt8(ascii: ":")),
            let port = DecimalText.value(text.utf8[text.utf8.index(after: colon)...], atMost: 65_535), port > 0
        else { return nil }
        var host = text[..<colon]
        let isBracketed = host.hasPrefix("[") && host.hasSuffix("]")
        if isBracketed { host = host.dropFirst().dropLast() }
        // An IPv6 address must be in brackets, any other host must not.
        guard isBracketed == host.utf8.contains(UInt8(ascii: ":")), Self.isHost(host) else { return nil }
        return HostPort(host: String(host), port: UInt16(port))
    }

    private static func isURL(_ text: String) -> Bool {
        guard let url = try? WebURL(text) else { return false }
        return Self.isHost(url.host[...]) && Self.isPath(url.rest.utf8)
    }

    /// Whether a text consists of path characters (RFC 3986, 3.3) without those that are special to a shell.
    private static func isPath(_ path: some Collection<UInt8>) -> Bool {
        var digits = 0
        for byte in path {
            if digits > 0 {
                guard Self.isHexDigit(byte) else { return false }
                digits -= 1
            } else if byte == UInt8(ascii: "%") {
                digits = 2
            } else {
                guard Self.isAlphanumeric(byte) || "/-._~:@+=,".utf8.contains(byte) else { return false }
            }
        }
        return digits == 0
    }

    /// An address or a host name (RFC 1123, 2.1); `_` is common in container names. A name with a numeric last label is
    /// rejected, because many programs parse `127.1` and `0x7f000001` as addresses.
    private static func isHost(_ host: Substring) -> Bool {
        if WireAddress(host: host.utf8, port: 0) != nil { return true }
        guard host.utf8.count <= 253 else { return false }
        let labels = host.utf8.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false)
        guard let last = labels.last, !Self.isNumber(last) else { return false }
        return labels.allSatisfy { label in
            (1...63).contains(label.count) && label.first != UInt8(ascii: "-") && label.last != UInt8(ascii: "-")
                && label.allSatisfy { Self.isAlphanumeric($0) || "-_".utf8.contains($0) }
        }
    }

    private static func isNumber(_ label: Substring.UTF8View) -> Bool {
        if label.starts(with: "0x".utf8) || label.starts(with: "0X".utf8) {
            return label.dropFirst(2).allSatisfy { Self.isHexDigit($0) }
        }
        return label.allSatisfy { (0x30...0x39).contains($0) }
    }

    private static func isAlphanumeric(_ byte: UInt8) -> Bool {
        (0x30...0x39).contains(byte) || (0x41...0x5A).contains(byte) || (0x61...0x7A).contains(byte)
    }

    private static func isHexDigit(_ byte: UInt8) -> Bool {
        (0x30...0x39).contains(byte) || (0x41...0x46).contains(byte) || (0x61...0x66).contains(byte)
    }
}
