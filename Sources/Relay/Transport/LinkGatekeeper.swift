package import ProxyProtocol
package import Reactor
package import Secure
package import Timing

/// The gatekeeper's answer to a PROXY header.
package enum IntroductionVerdict {
    case proceed
    /// Close the connection.
    case refuse(LinkEnd)
    /// End the link and leave its socket to the gatekeeper, which sends the alert.
    case tell(LinkEnd, TLSAlert)
}

/// Admits connections before their handshake.
package protocol LinkGatekeeper: AnyObject {
    /// A PROXY header arrived.
    func transport(_ transport: LinkTransport, didReceive header: ProxyHeader) -> IntroductionVerdict
    /// Follows ``IntroductionVerdict/tell(_:_:)``. The gatekeeper owns the socket from now on.
    func transport(_ transport: LinkTransport, leaves socket: SocketStream, _ alert: TLSAlert)
    /// The first message of the handshake is complete.
    ///
    /// - Returns: milliseconds to wait before the handshake is processed; 0 for none.
    func transportDidGreet(_ transport: LinkTransport) -> Milliseconds
}
