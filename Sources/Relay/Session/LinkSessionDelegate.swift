package import Secure
package import Tunnel
package import Wire

/// The decision of a link's owner about the peer's key.
package enum PeerVerdict: Equatable {
    /// Send HELLO, and at the agent the login.
    case proceed(Login?)
    /// Close without sending anything.
    case refuse(SecurityError)
}

/// The owner of a ``LinkSession``: the gateway's or the agent's side of it.
package protocol LinkSessionDelegate: AnyObject {
    /// The handshake is complete. Decide whether to accept the peer.
    func link(_ link: LinkSession, didSecure peer: ChannelPeer) -> PeerVerdict
    /// The machine has an event that is not just data for an edge.
    func link(_ link: LinkSession, did event: LinkEvent)
    /// A stream has ended and its slot is free.
    func link(_ link: LinkSession, streamEnded edge: Edge, _ end: StreamEnd)
    /// The connection is gone, and the link waits for the next one. Its streams stay. Unless it is resumed or ended
    /// before, it ends by itself after the resume window.
    func linkDidDetach(_ link: LinkSession, _ end: LinkEnd)
    /// The link is ending and accepts nothing new. `linkDidEnd` follows. Not called for a connection that is refused
    /// before its handshake.
    func linkIsEnding(_ link: LinkSession)
    /// The connection is closed and delivers nothing more. Edges may still write bytes received before.
    func linkDidEnd(_ link: LinkSession, _ end: LinkEnd)
    /// All edges are closed too. Follows `linkDidEnd`.
    func linkDidEmpty(_ link: LinkSession)
}
