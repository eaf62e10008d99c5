/// The TLS alerts (RFC 8446, 6.2) that a gateway sends to refuse a connection, and an agent explains.
package enum TLSAlert: UInt8, Sendable {
    /// The address is banned.
    case accessDenied = 49
    /// The gateway is at its limit of connections.
    case internalError = 80

    /// The alert as an unencrypted record, as it is sent before the keys are negotiated: type alert, version 3.3, two
    /// bytes, level fatal (RFC 8446, 5.1).
    package var record: [UInt8] { [21, 3, 3, 0, 2, 2, self.rawValue] }
}
