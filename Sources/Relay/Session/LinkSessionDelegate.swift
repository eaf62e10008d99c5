package import Secure
package import Tunnel
package import Wire

/// What the owner of a link makes of the peer's key.
package enum PeerVerdict: Equatable {
    /// Say hello, and as the agent log in.
    case proceed(Login?)
    /// Close without a word.
    case refuse(SecurityError)
}

/// The owner of a ``LinkSession``: the gateway's or the agent's side of it.
package protocol LinkSessionDelegate: AnyObject {
    /// The handshake is over: judge who the peer is.
    func link(_ link: LinkSession, didSecure peer: ChannelPeer) -> PeerVerdict
    /// The machine asks for something that concerns more than bytes.
    func link(_ link: LinkSession, did event: LinkEvent)
    /// A stream is over and its slot free.
    func link(_ link: LinkSession, streamEnded edge: Edge, _ end: StreamEnd)
    /// The link begins to end: it takes nothing new. `linkDidEnd` follows. Not called for a connection that is refused
    /// before its handshake.
    func linkIsEnding(_ link: LinkSession)
    /// The connection is closed: nothing comes from it any more. What came before may still be on its way to edges.
    func linkDidEnd(_ link: LinkSession, _ end: LinkEnd)
    /// After `linkDidEnd`: all edges are closed too.
    func linkDidEmpty(_ link: LinkSession)
}
