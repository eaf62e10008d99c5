package import Relay
internal import Tunnel
internal import Wire

/// How a stream or a link ended: which side ended it, and why.
package struct Ending: Hashable, Sendable {
    package enum Side: String, Sendable {
        case agent, gateway, visitor
        /// The connection between agent and gateway failed.
        case network
        /// Both sides of a stream ended it in order.
        case both
    }

    package let side: Side
    /// The slug of an ``ErrorCode``, or one of the words in the initializers.
    package let reason: String

    private static let other = "other"

    package init(_ side: Side, _ reason: String) {
        self.side = side
        self.reason = reason
    }

    private init(_ side: Side, _ code: ErrorCode) { self.init(side, code.description) }

    package init(_ end: StreamEnd) {
        switch end {
        case .finished: self.init(.both, "finished")
        case .failed: self.init(.visitor, "socket-error")
        case .resetByPeer(let code): self.init(.agent, code)
        case .abandoned(let code): self.init(.gateway, code)
        }
    }

    package init(_ end: LinkEnd) {
        switch end {
        case .closedByPeer: self.init(.agent, "closed")
        case .failed: self.init(.network, "socket-error")
        case .security: self.init(.gateway, "security")
        case .otherProtocol: self.init(.gateway, "other-protocol")
        case .violation(let violation): self.init(.gateway, violation.code)
        case .ended(let code, _): self.init(.gateway, code)
        case .goAway(let goAway): self.init(.agent, goAway.code)
        }
    }

    /// Counted instead of this value if a peer sent an unknown code.
    package var other: Ending { Ending(self.side, Self.other) }

    /// All values counted for streams.
    package static let ofStreams: [Ending] = {
        let codes = ErrorCode.all.filter { (1...31).contains($0.rawValue) }
        return [Ending(.both, "finished"), Ending(.visitor, "socket-error")]
            + (codes.map { Ending(.agent, $0) } + [Ending(.agent, Self.other)])
            + ((codes + [.dead, .revoked]).map { Ending(.gateway, $0) } + [Ending(.gateway, Self.other)])
    }()

    /// All values counted for links.
    package static let ofLinks: [Ending] = {
        let codes = ErrorCode.all.filter { $0 == .none || (32...63).contains($0.rawValue) }
        let own =
            codes + [
                .loginRefused, .notLoopback, .methodNotSupported, .denied, .overloaded, .internalError, .stalled,
            ]
        return [Ending(.network, "socket-error"), Ending(.agent, "closed")]
            + (codes.map { Ending(.agent, $0) } + [Ending(.agent, Self.other)])
            + ["security", "other-protocol"].map { Ending(.gateway, $0) }
            + (own.map { Ending(.gateway, $0) } + [Ending(.gateway, Self.other)])
    }()
}
