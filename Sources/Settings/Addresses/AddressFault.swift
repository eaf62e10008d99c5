internal import Wire

/// Explains why a text is not an address, and what to write instead.
enum AddressFault {
    static let listenForm = "0.0.0.0:PORT for IPv4, [::]:PORT for IPv6 or localhost:PORT"

    /// The reason why `text` is not `HOST:PORT`.
    ///
    /// - Parameters:
    ///   - isPortNeeded: whether a host alone is wrong.
    ///   - lowestPort: 0 if the system may choose.
    ///   - form: what is allowed, for texts that resemble nothing.
    static func reason(_ text: String, isPortNeeded: Bool, lowestPort: UInt16 = 1, form: String) -> String {
        if text.hasPrefix("diglett://") { return "the address of a gateway is for -g; write \(form)" }
        if let scheme = text.firstRange(of: "://") {
            let authority = text[scheme.upperBound...].prefix { $0 != "/" && $0 != "?" && $0 != "#" }
            // Without a user and a password.
            let rest = authority.split(separator: "@").last ?? authority
            var advice = "'\(PeerText.escaped(String(rest)))'"
            if HostPort(String(rest), defaultPort: isPortNeeded ? nil : 1) == nil { advice = form }
            return "leave out '\(PeerText.escaped(String(text[..<scheme.upperBound])))', write \(advice)"
        }
        guard text.utf8.allSatisfy({ $0 > 0x20 && $0 != 0x7F }), !text.isEmpty else { return "write \(form)" }
        if text.hasPrefix("[") {
            return self.bracketReason(text, isPortNeeded: isPortNeeded, lowestPort: lowestPort, form: form)
        }
        let colons = text.utf8.count { $0 == UInt8(ascii: ":") }
        guard let colon = text.lastIndex(of: ":") else {
            if text.utf8.allSatisfy({ (0x30...0x39).contains($0) }) {
                let isPort = HostPort.port(text).map { $0 >= lowestPort } ?? false
                return isPort ? self.hostReason(port: text, form) : self.portReason(text, lowestPort)
            }
            return isPortNeeded ? "the port is missing, write '\(PeerText.escaped(text)):PORT'" : "write \(form)"
        }
        let (host, port) = (String(text[..<colon]), String(text[text.index(after: colon)...]))
        if colons > 1 { return self.ipv6Reason(text, host: host, port: port) }
        if HostPort.port(port).map({ $0 < lowestPort }) ?? true { return self.portReason(port, lowestPort) }
        return host.isEmpty ? self.hostReason(port: port, form) : "write \(form)"
    }

    private static func hostReason(port: String, _ form: String) -> String {
        "the host is missing, write \(form.replacing("PORT", with: port))"
    }

    private static func portReason(_ port: String, _ lowest: UInt16) -> String {
        port.isEmpty
            ? "the port after ':' is missing"
            : "'\(PeerText.escaped(port))' is not a port, use \(lowest) to 65535"
    }

    private static func bracketReason(
        _ text: String, isPortNeeded: Bool, lowestPort: UInt16, form: String
    ) -> String {
        guard let end = text.lastIndex(of: "]") else { return "the bracket '[' is not closed" }
        let rest = text[text.index(after: end)...]
        if rest.isEmpty { return isPortNeeded ? "the port is missing, write '\(text):PORT'" : "write \(form)" }
        guard rest.hasPrefix(":") else { return "write \(form)" }
        return HostPort.port(rest.dropFirst()).map { $0 < lowestPort } ?? true
            ? self.portReason(String(rest.dropFirst()), lowestPort) : "write \(form)"
    }

    /// An IPv6 address needs brackets, because its last group could be a port.
    private static func ipv6Reason(_ text: String, host: String, port: String) -> String {
        let isAddress = { (text: String) in WireAddress(host: text.utf8, port: 0) != nil }
        if isAddress(host), HostPort.port(port) != nil {
            return "write an IPv6 address in brackets, '[\(host)]:\(port)'"
        }
        if isAddress(text) { return "write an IPv6 address in brackets, '[\(text)]:PORT'" }
        return "it has several colons; write an IPv6 address in brackets, '[::1]:PORT'"
    }

    /// The reason why `text` is not a backend.
    static func backendReason(_ text: String) -> String {
        let shown = PeerText.escaped(text)
        if FileAccess.isDirectory(text) || text == "~" { return self.folderReason }
        if text.hasSuffix("/"), HostPort(String(text.dropLast())) != nil {
            return "leave out the '/' at the end, write '\(PeerText.escaped(String(text.dropLast())))'"
        }
        if ["/", "./", "../"].contains(where: { text.hasPrefix($0) }) || text.hasSuffix(".sock"), !text.contains("://")
        {
            return "for a unix socket write 'unix:\(shown)'"
        }
        if text.contains("/"), !text.contains("://") { return "write HOST:PORT, PORT or unix:PATH" }
        let reason = self.reason(text, isPortNeeded: true, form: "HOST:PORT, PORT or unix:PATH")
        return text.hasPrefix("https://") ? "\(reason); visitors must speak TLS to it" : reason
    }

    private static let folderReason =
        "a folder needs a web server that serves it, for example 'python3 -m http.server 9000'; then write '9000'"
}
