internal import Logging

/// What a line of the log is about, by the names that `--log-format json` gives it: part of the interface, and
/// described in docs/operations.md.
package enum LogKey: String, CaseIterable {
    /// What the line tells of, where programs want to pick it out: `stream`.
    case event
    /// The other end of a link at the gateway, or whoever wanted to be one: ADDRESS:PORT.
    case peer
    /// The agent's identity.
    case agent
    case name
    case visitor
    /// The trusted proxy between visitor and gateway.
    case proxy
    case backend
    /// The gateway that an agent uses: HOST:PORT.
    case gateway
    /// Where the program listens, or a name is reachable.
    case address
    /// The public port of a name.
    case port
    /// The unix socket of a name.
    case socket
    case registrar
    /// The slug of a code of the protocol, or of an exit code.
    case code
    /// The exit code.
    case exit
    /// What the operating system says.
    case error
    case bytesToBackend = "bytes-to-backend"
    case bytesToVisitor = "bytes-to-visitor"
    case firstByte = "first-byte-ms"
    case duration = "duration-ms"
    case reason
    case endedBy = "ended-by"
}

extension Logger.Metadata {
    /// What a line is about, for the `metadata:` of a call of the logger; a value that is nil is left out.
    ///
    /// Values become text only when a line is written as JSON, and `metadata:` is not looked at when the line's level
    /// is off.
    package static func about(_ fields: KeyValuePairs<LogKey, (any CustomStringConvertible & Sendable)?>) -> Self {
        var metadata = Self(minimumCapacity: fields.count)
        metadata.add(fields)
        return metadata
    }

    package mutating func add(_ fields: KeyValuePairs<LogKey, (any CustomStringConvertible & Sendable)?>) {
        for (key, value) in fields {
            if let value { self[key.rawValue] = .stringConvertible(value) }
        }
    }
}
