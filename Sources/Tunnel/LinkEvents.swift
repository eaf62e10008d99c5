package import Wire

/// What the machine found in the bytes that the driver fed it; the driver performs it and feeds on.
package enum LinkEvent: Equatable {
    /// The batch holds no further whole frame; from the given offset on it is to be kept.
    case needMore
    /// Gateway: ask the authenticator, then call `acceptLogin` or `goAway`.
    case login(Credentials)
    /// Agent: the login was accepted; register the names.
    case welcomed(Welcome)
    /// Gateway: answer with `answerRegister`.
    case register(Register)
    /// Agent: an answer, or the word that an exposure is gone.
    case registered(Registered)
    /// Gateway: close the exposure.
    case unregister(exposure: UInt16)
    /// Agent: connect the backend, then call `accept` or `reset`.
    case opened(StreamKey, Open)
    /// Gateway: the agent is ready for visitors.
    case ready
    /// Gateway: the backend is connected.
    case accepted(StreamKey)
    /// Write these bytes of the batch to the edge, then, with `fin`, end its sending direction. Report `consumed`.
    case data(StreamKey, Range<Int>, fin: Bool)
    /// Reset the edge once it has what came before, and call `release` when it is closed.
    case reset(StreamKey, ErrorCode)
    /// The peer takes no new streams, or ends the link.
    case goAway(GoAway)
    /// The peer broke the protocol. The last words are in the outbox: flush and close the socket.
    case violation(PeerViolation)
}

/// How a peer broke the protocol.
package struct PeerViolation: Error, Equatable {
    package let code: ErrorCode
    /// For the log: made of our words and numbers only.
    package let detail: String

    package init(code: ErrorCode, detail: String) {
        self.code = code
        self.detail = detail
    }

    package static func `protocol`(_ detail: String) -> PeerViolation {
        PeerViolation(code: .protocolViolation, detail: detail)
    }
}

/// What the clock demands.
package enum LinkTick: Equatable {
    case none
    /// The link is over: flush the last words that are in the outbox if that is possible, and close.
    case close(ErrorCode)
}

/// How the clock ends a stream.
package enum StreamExpiry: Equatable {
    /// Reset the edge.
    case reset(ErrorCode)
    /// End both directions of the edge in order, as the peer has said all that it will say.
    case finish
}

/// Why no further stream of an exposure can be opened now.
package enum OpenObstacle: Equatable, Sendable {
    /// The link is not up yet, drains, or has ended.
    case notUp
    /// The agent has not read enough of the control frames that it was sent.
    case owedControl
    /// Too many streams of the exposure wait for ACCEPT.
    case pendingOpens
}
