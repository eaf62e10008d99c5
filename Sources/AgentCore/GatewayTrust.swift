/// Decides whether the key that a gateway shows is the right one.
///
/// In this order: a pin, which if given alone counts; the system's certificate authorities; the keys that were met
/// before. There is no way to switch the question off.
///
/// A certificate of which only the dates are wrong is the operator's to renew, or the fault of a clock: the agent waits
/// for that and remembers nothing, because renewed certificates may have new keys.
package enum GatewayTrust {
    package enum Verdict: Equatable, Sendable {
        case accept
        /// Accept, and remember the key under the gateway's address.
        case acceptAndRemember
        /// Ask the person at the terminal.
        case ask
        case refuse(String)
        /// Not now: the certificate has expired or is not valid yet, and a later one may be right.
        case wait(String)
        /// Accept and tell the user, but do not remember the key.
        case acceptWithWarning(String)
    }

    /// - Parameters:
    ///   - gateway: `HOST:PORT` as it was dialled.
    ///   - pins: given by the user; one or two.
    ///   - shown: the pin of the key that the gateway showed.
    ///   - dateFault: what is wrong with the certificate's dates, such as `expired on DATE`, if nothing else keeps the
    ///     system's authorities from vouching for it.
    ///   - known: the pin that was remembered for this address.
    ///   - knownAt: where it is written, `file:line`.
    ///   - damagedAt: a line that may have held this gateway's pin and cannot be read, `file:line`.
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
            "the key of \(gateway) is unknown and there is no terminal to confirm it: it is \(shown); "
                + "if that is the pin that the gateway prints when it starts, pass --pin \(shown)")
    }
}
