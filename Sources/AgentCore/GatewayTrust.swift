/// Decides whether to trust the key that a gateway presents.
///
/// It checks, in this order: pins, and nothing else if there are any; the system's certificate authorities; known keys.
/// The check cannot be switched off.
///
/// If only the dates of a certificate are wrong, the operator must renew it or a clock is wrong. The agent waits for
/// that and remembers nothing, because a renewed certificate may have a new key.
package enum GatewayTrust {
    package enum Verdict: Equatable, Sendable {
        case accept
        /// Accept, and remember the key under the gateway's address.
        case acceptAndRemember
        /// Ask the user at the terminal.
        case ask
        case refuse(String)
        /// Try again later: the certificate has expired or is not valid yet, and a renewed one may be accepted.
        case wait(String)
        /// Accept and warn the user, but do not remember the key.
        case acceptWithWarning(String)
    }

    /// - Parameters:
    ///   - gateway: `HOST:PORT` as dialled.
    ///   - pins: given by the user: none, one, or two while the gateway's key changes.
    ///   - shown: the pin of the key that the gateway presents.
    ///   - dateFault: the fault in the certificate's dates, such as `expired on DATE`, if it is the only reason why the
    ///     system's authorities do not accept the certificate.
    ///   - known: the pin remembered for this address.
    ///   - knownAt: where it is stored, `file:line`.
    ///   - damagedAt: an unreadable line that may have held this gateway's pin, `file:line`.
    package static func judge(
        gateway: String, pins: [String], shown: String, isTrustedBySystem: Bool, dateFault: String? = nil,
        known: String?, knownAt: String, damagedAt: String? = nil, isLoopback: Bool, hasTerminal: Bool
    ) -> Verdict {
        if !pins.isEmpty {
            if pins.contains(shown) { return .accept }
            return .refuse(
                "\(gateway) has the key \(shown), not the pinned \(pins.joined(separator: " or ")): "
                    + "compare it with the pin that the gateway prints when it starts")
        }
        if isTrustedBySystem || known == shown { return .accept }
        if let dateFault {
            let text = "the certificate of \(gateway) \(dateFault)"
            guard isLoopback, known == nil else { return .wait(text) }
            return .acceptWithWarning(
                "\(text); the key \(shown) is accepted because the gateway is on this machine, but not remembered")
        }
        if let known {
            return .refuse(
                "the key of \(gateway) has changed from \(known) (\(knownAt)) to \(shown): "
                    + "if its operator changed the key, delete that line; otherwise someone may be intercepting the connection"
            )
        }
        if isLoopback { return .acceptAndRemember }
        if hasTerminal { return .ask }
        if let damagedAt {
            return .refuse(
                "the key of \(gateway) is unknown because the line \(damagedAt) is damaged: delete that line; if \(shown) is "
                    + "the pin that the gateway prints when it starts, pass --pin \(shown)")
        }
        return .refuse(
            "the key of \(gateway) is new and cannot be confirmed without a terminal: it is \(shown); "
                + "if that is the pin that the gateway prints when it starts, pass --pin \(shown)")
    }
}
