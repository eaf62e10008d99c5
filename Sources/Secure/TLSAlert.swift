/// What one side says when it ends a handshake (RFC 8446, 6.2), as far as diglett gives it a meaning.
package enum TLSAlert: UInt8, Sendable {
    /// The operator keeps the address out.
    case accessDenied = 49
    /// There is no room for another connection.
    case internalError = 80

    /// The record that says so in plain text, before there are keys: type alert, version 3.3, two bytes, level fatal.
    package var record: [UInt8] { [21, 3, 3, 0, 2, 2, self.rawValue] }
}
