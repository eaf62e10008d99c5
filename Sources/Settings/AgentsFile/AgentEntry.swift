internal import FoundationEssentials

/// An agent of an ``AgentsFile``: its credentials and its rights.
package struct AgentEntry: Equatable, Sendable {
    /// Size of a SHA-256 hash in bytes.
    package static let hashSize = 32

    /// The agent's identity, also in logs and tokens.
    package let name: String
    /// SHA-256 of the token's secret.
    package var tokenHash: [UInt8]?
    /// SHA-256 of the whole token for protocol version 1. That token is never valid for version 2.
    package var version1TokenHash: [UInt8]?
    /// Hashes of replaced tokens that are still valid for a while; nil for none.
    package var formerTokenHash: [UInt8]?
    package var formerVersion1TokenHash: [UInt8]?
    /// End of their validity, in seconds since 1970.
    package var formerTokenUntil: Int64?
    /// Pins of client certificates' keys, `sha256/BASE64`.
    package var pins: [String]
    package var names: [NamePattern]
    /// The public ports that the agent may use; empty for all of the gateway's.
    package var ports: [PortRange]
    /// Seconds since 1970; nil for never.
    package var expires: Int64?
    package var isDisabled: Bool
    /// Nil for the gateway's own limits.
    package var maxLinks: Int?
    package var maxNames: Int?
    package var maxStreams: Int?

    package init(name: String) {
        self.name = name
        self.pins = []
        self.names = []
        self.ports = []
        self.isDisabled = false
    }

    package func isExpired(at seconds: Int64) -> Bool { self.expires.map { $0 <= seconds } ?? false }

    /// Whether replaced tokens are still valid.
    package func takesFormerTokens(at seconds: Int64) -> Bool { self.formerTokenUntil.map { $0 > seconds } ?? false }

    /// The changes since `former`, by the names of keys in the file.
    package func differences(from former: AgentEntry) -> [String] {
        func limit(_ key: String, _ value: Int?, _ former: Int?) -> String? {
            value == former ? nil : "\(key) \(value.map(String.init) ?? "not set")"
        }
        let changes: [String?] = [
            self.tokenHash != former.tokenHash ? (self.tokenHash == nil ? "no token" : "another token") : nil,
            self.version1TokenHash != former.version1TokenHash
                ? (self.version1TokenHash == nil ? "no v1-token" : "another v1-token") : nil,
            self.formerTokenUntil != former.formerTokenUntil
                || self.formerTokenHash != former.formerTokenHash
                || self.formerVersion1TokenHash != former.formerVersion1TokenHash
                ? self.formerTokenUntil.map { "former token until \(Timestamp.text($0))" } ?? "no former token" : nil,
            self.pins != former.pins ? "pins changed" : nil,
            self.names != former.names ? "names \(self.names.map(\.text).joined(separator: " "))" : nil,
            self.ports != former.ports ? "ports \(self.ports.map(\.description).joined(separator: " "))" : nil,
            self.expires != former.expires
                ? "expires \(self.expires.map { Timestamp.text($0) } ?? "never")" : nil,
            self.isDisabled != former.isDisabled ? (self.isDisabled ? "disabled" : "enabled") : nil,
            limit("max-links", self.maxLinks, former.maxLinks), limit("max-names", self.maxNames, former.maxNames),
            limit("max-streams", self.maxStreams, former.maxStreams),
        ]
        return changes.compactMap(\.self)
    }

    /// Letters, digits and inner hyphens, which are safe in a token and in a log.
    package static func isValid(name: String) -> Bool {
        (1...63).contains(name.utf8.count)
            && name.utf8.allSatisfy {
                (0x61...0x7A).contains($0) || (0x30...0x39).contains($0) || $0 == 0x2D
            } && !name.hasPrefix("-") && !name.hasSuffix("-")
    }

    package static let nameRule = "use 1 to 63 letters a-z, digits and inner hyphens"
}

/// The token of an agent, `dgl_NAME_SECRET`; the secret is 256 random bits in base64url (RFC 4648, 5).
package enum AgentToken {
    private static let prefix = "dgl_"
    private static let version1Prefix = "dgl1_"

    /// Whether a text begins like a token, of version 1 or 2. Used for texts that should not contain one.
    package static func looksLikeOne(_ text: String) -> Bool {
        [self.prefix, self.version1Prefix].contains { text.hasPrefix($0) }
    }

    /// The agent's name and the secret; nil if the text does not have the form of a token.
    package static func parse(_ token: String) -> (name: String, secret: String)? {
        guard token.hasPrefix(self.prefix) else { return nil }
        let rest = token.dropFirst(self.prefix.count)
        guard let end = rest.firstIndex(of: "_") else { return nil }
        return (String(rest[..<end]), String(rest[rest.index(after: end)...]))
    }

    /// Characters of a secret: 32 bytes in Base64 without padding (RFC 4648, section 5).
    package static let secretLength = 43

    /// - Parameter secret: 32 random bytes.
    package static func make(name: String, secret: [UInt8]) -> (token: String, secret: String) {
        let text = self.base64url(secret)
        return ("\(self.prefix)\(name)_\(text)", text)
    }

    package static func makeVersion1(name: String, secret: [UInt8]) -> String {
        "\(self.version1Prefix)\(name)_\(self.base64url(secret))"
    }

    private static func base64url(_ bytes: [UInt8]) -> String {
        Data(bytes).base64EncodedString().replacing("+", with: "-")
            .replacing("/", with: "_").replacing("=", with: "")
    }
}
