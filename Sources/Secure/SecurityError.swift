internal import COpenSSL

/// What OpenSSL, or a rule of ours about its results, found wrong.
package struct SecurityError: Error, Equatable, Sendable, CustomStringConvertible {
    /// A limit of ours for what a peer may send.
    package enum Limit: Equatable, Sendable {
        /// Messages after the handshake.
        case messages
        /// Bytes of the peer's certificates.
        case certificates
    }

    package let description: String
    /// Set when the peer has exceeded one.
    package let limit: Limit?
    /// Set when the peer has sent one.
    package let alert: TLSAlert?

    package init(_ description: String, limit: Limit? = nil, alert: TLSAlert? = nil) {
        self.description = description
        self.limit = limit
        self.alert = alert
    }

    /// The oldest error in OpenSSL's queue of this thread, which is emptied.
    static func last(_ what: String) -> SecurityError {
        let code = ERR_get_error()
        ERR_clear_error()
        guard code != 0 else { return SecurityError(what) }
        let reason = ERR_GET_REASON(code)
        // SSL_CTX_set_max_cert_list(3): no other message of a handshake can be as large as its bound.
        let limit: Limit? = reason == SSL_R_EXCESSIVE_MESSAGE_SIZE ? .certificates : nil
        let alert = UInt8(exactly: reason - SSL_AD_REASON_OFFSET).flatMap(TLSAlert.init(rawValue:))
        // OpenSSL's words for it, 'wrong version number', sound like a release of ours that does not match.
        if reason == SSL_R_WRONG_VERSION_NUMBER {
            return SecurityError("\(what): the peer does not speak TLS")
        }
        if let reason = ERR_reason_error_string(code) {
            return SecurityError("\(what): \(String(cString: reason))", limit: limit, alert: alert)
        }
        return SecurityError("\(what): OpenSSL error \(code)")
    }
}

/// Calls to OpenSSL that return 1 for success.
func check(_ code: CInt, _ what: String) throws(SecurityError) {
    guard code == 1 else { throw .last(what) }
}
