package import Reactor
package import Wire

/// Why a stream ended.
package enum StreamEnd: Equatable, Sendable {
    /// Both directions ended in order.
    case finished
    /// The other end of the link reset it.
    case resetByPeer(ErrorCode)
    /// The socket at this edge failed.
    case failed(UVError)
    /// We ended it: because of a deadline, a refusal, or the end of the link.
    case abandoned(ErrorCode)

    /// A short identifier that stays the same across releases.
    package var slug: String {
        switch self {
        case .finished: "finished"
        case .resetByPeer(let code), .abandoned(let code): "\(code)"
        case .failed: "socket-error"
        }
    }
}

/// Which side first ended its direction of a stream in order.
package enum EndingSide: Sendable {
    /// The socket at this edge sent its end.
    case socket
    /// The end arrived over the link.
    case link
    /// We ended it, to make room or because of a deadline.
    case here
}
