internal import Reactor
internal import Relay
internal import Secure
internal import Settings

/// Error texts for failed connections to the gateway, with advice on what to check.
enum DialAdvice {
    /// No address accepted a connection.
    static func text(_ error: UVError) -> String {
        switch error {
        case .connectionRefused:
            "\(error): no program listens on that port; check that diglett-server runs and the port is right"
        case .timedOut: "\(error): check for a firewall between this machine and the gateway"
        default: error.isResolution ? "\(error): check the name" : "\(error)"
        }
    }

    /// A connection ended before the gateway presented its key.
    static func text(_ end: LinkEnd, _ gateway: HostPort) -> String {
        switch end {
        case .security(let error):
            if error.isNotTLS {
                return "\(gateway) does not speak TLS: check that it is the port for agents, 20000 by default"
            }
            switch error.alert {
            case .accessDenied:
                return """
                    it answered 'access denied': if it is a diglett gateway, it has banned this address, and \
                    'diglett-server ctl unban' there lifts the ban
                    """
            case .internalError:
                return "it answered 'internal error': if it is a diglett gateway, it has too many connections"
            case nil: return end.description
            }
        case .closedByPeer, .failed(.connectionReset):
            return """
                \(end) before the TLS handshake: check that a diglett gateway listens on that port; a ban, a connection \
                limit or a firewall can also be the cause
                """
        default: return end.description
        }
    }
}
