internal import Logging

/// What a log line is about, by the field names of `--log-format json`. They are part of the interface and are
/// described in docs/monitoring.md.
package enum LogKey: String, CaseIterable {
    /// The kind of line, for programs that filter lines: `stream`.
    case event
    /// At the gateway: the other end of a link, or of a connection that has not logged in, ADDRESS:PORT.
    case peer
    /// The agent's identity.
    case agent
    case name
    case visitor
    /// The trusted proxy between visitor and gateway.
    case proxy
    case backend
    /// The gateway to which an agent connects: HOST:PORT.
    case gateway
    /// The address on which the program listens or a name is reachable.
    case address
    /// The public port of a name.
    case port
    /// The unix socket of a name.
    case socket
    case registrar
    /// The short name of a protocol code or exit code.
    case code
    /// The exit code.
    case exit
    /// The operating system's error.
    case error
    case bytesToBackend = "bytes-to-backend"
    case bytesToVisitor = "bytes-to-visitor"
    case firstByte = "first-byte-ms"
    case duration = "duration-ms"
    case reason
    case endedBy = "ended-by"
}

extension Logger.Metadata {
    /// The fields of a line, for the `metadata:` of a logger call. Nil values are left out.
    ///
    /// Values become text only when a line is written as JSON. If the line's level is off, `metadata:` is not
    /// evaluated.
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
