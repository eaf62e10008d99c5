package import ProxyProtocol
package import Reactor
package import Secure

/// The gatekeeper's decision about a PROXY header.
package enum IntroductionVerdict {
    case proceed
    /// The gatekeeper calls ``LinkTransport/proceed()`` or ``LinkTransport/turnAway(_:_:)`` later.
    case wait
    /// Close the connection.
    case refuse(LinkEnd)
}

/// Admits connections before their handshake.
package protocol LinkGatekeeper: AnyObject {
    /// A PROXY header arrived.
    func transport(_ transport: LinkTransport, didReceive header: ProxyHeader) -> IntroductionVerdict
    /// Called by ``LinkTransport/turnAway(_:_:)``. The gatekeeper owns the socket from now on, and sends the alert.
    func transport(_ transport: LinkTransport, leaves socket: SocketStream, _ alert: TLSAlert)
    /// The first message of the handshake is complete. The gatekeeper must call ``LinkTransport/shakeHands(after:)``.
    func transportDidGreet(_ transport: LinkTransport)
}
