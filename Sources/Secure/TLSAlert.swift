/// The TLS alerts (RFC 8446, 6.2) with which a gateway refuses a connection. Agents explain them to the user.
package enum TLSAlert: UInt8, Sendable {
    /// The agent's address is banned.
    case accessDenied = 49
    /// The gateway has reached its connection limit.
    case internalError = 80

    /// The alert as an unencrypted record, to send before keys are negotiated: type alert, version 3.3, length 2, level
    /// fatal (RFC 8446, 5.1).
    package var record: [UInt8] { [21, 3, 3, 0, 2, 2, self.rawValue] }
}
