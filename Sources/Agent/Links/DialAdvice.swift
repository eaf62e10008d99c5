internal import Reactor
internal import Relay
internal import Secure

/// Error texts for failed connections to the gateway, with what to check.
enum DialAdvice {
    /// No address could be connected.
    static func text(_ error: UVError) -> String {
        switch error {
        case .connectionRefused: "\(error): nothing listens there; is diglett-server running, and is it that port?"
        case .timedOut: "\(error): is a firewall in between?"
        default: error.isResolution ? "\(error): is the name right?" : "\(error)"
        }
    }

    /// A connection ended before the gateway had shown its key.
    static func text(_ end: LinkEnd) -> String {
        switch end {
        case .security(let error):
            switch error.alert {
            case .accessDenied:
                """
                it answers 'access denied': a diglett gateway does so when it has banned this address, which \
                'diglett-server ctl unban' lifts there; is one behind that port?
                """
            case .internalError:
                """
                it answers 'internal error': a diglett gateway does so when it has no room for another connection; is \
                one behind that port?
                """
            case nil: end.description
            }
        case .closedByPeer, .failed(.connectionReset):
            """
            \(end) before the handshake: is a diglett gateway behind that port? A ban, a limit of connections or a \
            firewall can be the reason too
            """
        default: end.description
        }
    }
}
