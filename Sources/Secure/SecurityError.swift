internal import COpenSSL

/// What OpenSSL, or a rule of ours about its results, found wrong.
package struct SecurityError: Error, Equatable, Sendable, CustomStringConvertible {
    package let description: String

    package init(_ description: String) { self.description = description }

    /// The oldest error in OpenSSL's queue of this thread, which is emptied.
    static func last(_ what: String) -> SecurityError {
        let code = ERR_get_error()
        ERR_clear_error()
        guard code != 0 else { return SecurityError(what) }
        if let reason = ERR_reason_error_string(code) { return SecurityError("\(what): \(String(cString: reason))") }
        return SecurityError("\(what): OpenSSL error \(code)")
    }
}

/// Calls to OpenSSL that return 1 for success.
func check(_ code: CInt, _ what: String) throws(SecurityError) {
    guard code == 1 else { throw .last(what) }
}
