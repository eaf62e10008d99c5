package import ProxyProtocol
package import Reactor
package import Secure

/// The gatekeeper's answer to a PROXY header.
package enum IntroductionVerdict {
    case proceed
    /// ``LinkTransport/proceed()`` or ``LinkTransport/turnAway(_:_:)`` follows.
    case wait
    /// Close the connection.
    case refuse(LinkEnd)
}

/// Admits connections before their handshake.
package protocol LinkGatekeeper: AnyObject {
    /// A PROXY header arrived.
    func transport(_ transport: LinkTransport, didReceive header: ProxyHeader) -> IntroductionVerdict
    /// Follows ``LinkTransport/turnAway(_:_:)``. The gatekeeper owns the socket from now on.
    func transport(_ transport: LinkTransport, leaves socket: SocketStream, _ alert: TLSAlert)
    /// The first message of the handshake is complete: ``LinkTransport/shakeHands(after:)`` follows.
    func transportDidGreet(_ transport: LinkTransport)
}
