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
    /// We gave it up: a deadline, a refusal, the end of the link.
    case abandoned(ErrorCode)

    /// A short name that stays the same across versions.
    package var slug: String {
        switch self {
        case .finished: "finished"
        case .resetByPeer(let code), .abandoned(let code): "\(code)"
        case .failed: "socket-error"
        }
    }
}

/// What began the end of a stream that ended in order.
package enum EndingSide: Sendable {
    /// The socket at this edge sent its end.
    case socket
    /// The end came over the link.
    case link
    /// We ended it: for room, or as a deadline was over.
    case here
}
