internal import COpenSSL

/// An error from OpenSSL, or from our own checks of a handshake.
package struct SecurityError: Error, Equatable, Sendable, CustomStringConvertible {
    /// One of our limits on what a peer may send.
    package enum Limit: Equatable, Sendable {
        /// The number of messages after the handshake.
        case messages
        /// The size of the peer's certificates in bytes.
        case certificates
    }

    package let description: String
    /// The limit that the peer exceeded, if any.
    package let limit: Limit?
    /// The alert that the peer sent, if it is one of ``TLSAlert``.
    package let alert: TLSAlert?
    /// Whether the peer's first bytes are not TLS.
    package let isNotTLS: Bool

    package init(_ description: String, limit: Limit? = nil, alert: TLSAlert? = nil, isNotTLS: Bool = false) {
        self.description = description
        self.isNotTLS = isNotTLS
        self.limit = limit
        self.alert = alert
    }

    /// Makes an error from the oldest entry of this thread's OpenSSL error queue, and clears the queue.
    ///
    /// - Parameter what: the operation that failed.
    static func last(_ what: String) -> SecurityError {
        let code = ERR_get_error()
        ERR_clear_error()
        guard code != 0 else { return SecurityError(what) }
        let reason = ERR_GET_REASON(code)
        // No other handshake message can be as large as the bound set with SSL_CTX_set_max_cert_list(3).
        let limit: Limit? = reason == SSL_R_EXCESSIVE_MESSAGE_SIZE ? .certificates : nil
        let alert = UInt8(exactly: reason - SSL_AD_REASON_OFFSET).flatMap(TLSAlert.init(rawValue:))
        // OpenSSL's text, 'wrong version number', sounds like a mismatch of diglett releases.
        if reason == SSL_R_WRONG_VERSION_NUMBER {
            return SecurityError("\(what): the peer does not speak TLS", isNotTLS: true)
        }
        if let reason = ERR_reason_error_string(code) {
            return SecurityError("\(what): \(String(cString: reason))", limit: limit, alert: alert)
        }
        return SecurityError("\(what): OpenSSL error \(code)")
    }
}

/// Checks the result of an OpenSSL function that returns 1 on success.
func check(_ code: CInt, _ what: String) throws(SecurityError) {
    guard code == 1 else { throw .last(what) }
}
