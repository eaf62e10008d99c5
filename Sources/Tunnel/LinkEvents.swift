package import Wire

/// What the driver must do about received bytes before it calls `nextEvent` again.
package enum LinkEvent: Equatable {
    /// The batch has no more complete frames. Keep it from the offset on.
    case needMore
    /// Agent: the gateway's HELLO arrived. Send RESUME or LOGIN, unless LOGIN was sent already.
    case greeted(Hello)
    /// Gateway: the agent continues a session. Hand the connection to its link, or call `refuseResume`.
    case resume(Resume)
    /// Agent: the answer to RESUME. Hand the connection to the session's link, or log in on it.
    case resumed(Resumed)
    /// Gateway: authenticate the agent, then call `acceptLogin` or `goAway`.
    case login(Credentials)
    /// Agent: the login was accepted; register the names.
    case welcomed(Welcome)
    /// Gateway: answer with `answerRegister`.
    case register(Register)
    /// Agent: the answer to a REGISTER, or the notice that an exposure is gone.
    case registered(Registered)
    /// Gateway: close the exposure.
    case unregister(exposure: UInt16)
    /// Agent: connect the backend, then call `accept` or `reset`.
    case opened(StreamKey, Open)
    /// Gateway: the agent is ready for visitors.
    case ready
    /// Gateway: the backend is connected.
    case accepted(StreamKey)
    /// Write these bytes of the batch to the edge and report them with `consumed`. If `fin` is true, end the edge's
    /// sending direction after them.
    case data(StreamKey, Range<Int>, fin: Bool)
    /// Reset the edge after it has the bytes received before. Call `release` when it is closed.
    case reset(StreamKey, ErrorCode)
    /// The peer accepts no new streams, or ends the link.
    case goAway(GoAway)
    /// The peer broke the protocol. The GOAWAY is in the outbox: flush it and close the socket.
    case violation(PeerViolation)
}

/// How a peer broke the protocol.
package struct PeerViolation: Error, Equatable, Sendable {
    package let code: ErrorCode
    /// For the log. It contains only our own words and numbers, no text from the peer.
    package let detail: String

    package init(code: ErrorCode, detail: String) {
        self.code = code
        self.detail = detail
    }

    package static func `protocol`(_ detail: String) -> PeerViolation {
        PeerViolation(code: .protocolViolation, detail: detail)
    }
}

/// What the driver must do after a tick.
package enum LinkTick: Equatable {
    case none
    /// The link is over: flush the GOAWAY in the outbox if possible, then close.
    case close(ErrorCode)
    /// The carrier is unusable, but the session continues: close the connection and call `detach`.
    case lost(ErrorCode)
    /// No carrier came within the resume window: end the session.
    case expired
}

/// The decision of a session's link about RESUME.
package enum ResumeVerdict: Equatable, Sendable {
    /// The link has queued RESUMED for the new connection and continues there. Close the former one at once.
    case resumed
    /// Answer GOAWAY(replaced): a later attempt was accepted before.
    case replaced
    /// End the session and the new connection.
    case violation(PeerViolation)
}

/// How the driver ends a stream that a deadline has ended.
package enum StreamExpiry: Equatable {
    /// Reset the edge.
    case reset(ErrorCode)
    /// End both directions of the edge in order: the peer will send nothing more.
    case finish
}

/// Why a stream of an exposure cannot be opened now.
package enum OpenObstacle: Equatable, Sendable {
    /// The link is not up yet, is draining, or has ended.
    case notUp
    /// The agent has left too many control frames unread.
    case owedControl
    /// Too many streams of the exposure wait for ACCEPT.
    case pendingOpens
}
