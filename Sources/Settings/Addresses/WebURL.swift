internal import Wire

/// An `http` or `https` URL, parsed as far as needed to know its destination (RFC 3986, 3).
///
/// The parser is stricter than libcurl: if two programs parse a URL differently, one of them connects to a host that
/// the other has not checked.
struct WebURL: Equatable {
    enum Scheme: String, CaseIterable { case http, https }

    /// What is wrong with a text; errors show it after the text.
    struct Mistake: Error, Equatable { let reason: String }

    static let userInfo = Mistake(reason: "a user or password before the host is not allowed")

    let scheme: Scheme
    /// In lower case; an IPv6 address without its brackets.
    let host: String
    let port: UInt16
    /// The text after host and port: path, query and fragment.
    let rest: String
    var hasPath: Bool { !self.rest.isEmpty }

    init(_ text: String) throws(Mistake) {
        guard let scheme = Scheme.allCases.first(where: { text.hasPrefix("\($0.rawValue)://") }) else {
            throw Mistake(reason: "it must begin with https:// or http://")
        }
        // As bytes: a Swift Character may be a letter with a combining accent, or a CRLF.
        let rest = text.utf8.dropFirst(scheme.rawValue.utf8.count + "://".utf8.count)
        guard rest.allSatisfy({ $0 > 0x20 && $0 < 0x7F }) else {
            throw Mistake(
                reason: "spaces, control characters and non-ASCII letters must be percent-encoded, for example %20")
        }
        let authority = rest.prefix { !"/?#".utf8.contains($0) }
        guard !authority.contains(UInt8(ascii: "@")) else { throw Self.userInfo }
        let (host, port) = try Self.split(authority)
        self.scheme = scheme
        self.host = host
        self.port = port ?? (scheme == .https ? 443 : 80)
        self.rest = String(decoding: rest.dropFirst(authority.count), as: UTF8.self)
    }

    private static func split(_ authority: Substring.UTF8View) throws(Mistake) -> (host: String, port: UInt16?) {
        var host = authority.prefix { $0 != UInt8(ascii: ":") }
        var rest = authority.dropFirst(host.count)
        if authority.first == UInt8(ascii: "[") {
            host = authority.dropFirst().prefix { $0 != UInt8(ascii: "]") }
            rest = authority.dropFirst(1 + host.count)
            guard rest.first == UInt8(ascii: "]") else { throw Mistake(reason: "the bracket '[' is not closed") }
            rest = rest.dropFirst()
            guard host.contains(UInt8(ascii: ":")), WireAddress(host: host, port: 0) != nil else {
                throw Mistake(reason: "the text in brackets is not an IPv6 address")
            }
        } else if host.isEmpty {
            throw Mistake(reason: "the host is missing")
        } else if !HostPort.isHost(String(Substring(host))) {
            throw Mistake(reason: "the host is not a host name or an address")
        }
        let name = Substring(host).lowercased()
        guard !rest.isEmpty else { return (name, nil) }
        let digits = Substring(rest.dropFirst())
        guard rest.first == UInt8(ascii: ":"), let port = DecimalText.value(digits.utf8, atMost: 65_535), port > 0
        else {
            throw Mistake(reason: "after the host, only ':' and a port from 1 to 65535 are allowed")
        }
        return (name, UInt16(port))
    }

    /// Whether the host is this machine, regardless of what a resolver returns.
    var isLoopback: Bool { HostPort(host: self.host, port: self.port).isLoopback }

    /// Scheme, host and port in canonical form, with `localhost` replaced by its address.
    var target: String { "\(self.scheme.rawValue)://\(HostPort(host: self.host, port: self.port).canonical)" }

    /// The part of a text, URL or not, that may be shown: scheme, host, port and path. User info, query and fragment
    /// may be secret.
    static func shown(_ text: String) -> String {
        // Without `://`, everything before the last `@` may be a password.
        guard text.contains("://") || !text.contains("@") else {
            return String(
                text[text.index(after: text.lastIndex(of: "@") ?? text.startIndex)...].prefix { !"/?#".contains($0) })
        }
        let scheme = text.firstRange(of: "://").map { text[..<$0.upperBound] } ?? ""
        let rest = text.dropFirst(scheme.count).prefix { $0 != "?" && $0 != "#" }
        let authority = rest.prefix { $0 != "/" }
        let host = authority.lastIndex(of: "@").map { authority[authority.index(after: $0)...] } ?? authority
        return "\(scheme)\(host)\(rest[authority.endIndex...])"
    }
}
