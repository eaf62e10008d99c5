package import ProxyProtocol
package import Reactor
package import Secure
package import Timing
package import Tunnel
package import Wire

/// Why a link's connection is over.
package enum LinkEnd: Equatable, CustomStringConvertible {
    /// The peer closed the connection.
    case closedByPeer
    case failed(UVError)
    /// The handshake or the encryption failed.
    case security(SecurityError)
    /// The first byte is not that of the expected handshake.
    case otherProtocol(firstByte: UInt8)
    /// The peer broke the protocol.
    case violation(PeerViolation)
    /// We ended it, for this reason.
    case ended(ErrorCode, String)
    /// The peer ended it.
    case goAway(GoAway)

    /// What becomes of the streams that ran.
    var streamCode: ErrorCode {
        switch self {
        case .ended(.none, _): .withdrawn
        case .ended(let code, _): code
        case .goAway(let goAway): goAway.code == .none ? .withdrawn : goAway.code
        case .violation(let violation): violation.code
        case .closedByPeer, .failed, .security, .otherProtocol: .dead
        }
    }

    /// Whether streams end at once: the peer broke the protocol, or the operator or the peer's program ended the link.
    /// Else what came before is still delivered.
    var cutsStreams: Bool {
        switch self {
        case .violation, .security, .otherProtocol: true
        case .ended(let code, _):
            switch code {
            case .none, .drain, .denied, .revoked, .protocolViolation, .flowControl, .glitches, .owed: true
            default: false
            }
        case .closedByPeer, .failed, .goAway: false
        }
    }

    package var description: String {
        switch self {
        case .closedByPeer: "the peer closed the connection"
        case .failed(let error): "\(error)"
        case .security(let error): "\(error)"
        case .otherProtocol(let byte): "another protocol, the first byte is 0x\(String(byte, radix: 16))"
        case .violation(let violation): "\(violation.code): \(violation.detail)"
        case .ended(let code, let text): Self.text(code, text)
        case .goAway(let goAway): Self.text(goAway.code, PeerText.escaped(goAway.text))
        }
    }

    /// An end in order has no code that would explain it.
    private static func text(_ code: ErrorCode, _ text: String) -> String {
        text.isEmpty ? "\(code)" : code == .none ? text : "\(code): \(text)"
    }
}

/// What the owner of a link makes of the peer's key.
package enum PeerVerdict: Equatable {
    /// Say hello, and as the agent log in.
    case proceed(Login?)
    /// Close without a word.
    case refuse(SecurityError)
}

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
    func link(_ connection: LinkConnection, didReceive header: ProxyHeader) -> IntroductionVerdict
    /// Follows ``IntroductionVerdict/tell(_:_:)``. The gatekeeper owns the socket from now on.
    func link(_ connection: LinkConnection, leaves socket: SocketStream, _ alert: TLSAlert)
    /// The first message of the handshake is complete.
    ///
    /// - Returns: milliseconds to wait before the handshake is processed; 0 for none.
    func linkDidGreet(_ connection: LinkConnection) -> Milliseconds
}

/// The owner of a ``LinkConnection``: the gateway's or the agent's side of it.
package protocol LinkConnectionDelegate: AnyObject {
    /// The handshake is over: judge who the peer is.
    func link(_ connection: LinkConnection, didSecure peer: ChannelPeer) -> PeerVerdict
    /// The machine asks for something that concerns more than bytes.
    func link(_ connection: LinkConnection, did event: LinkEvent)
    /// A stream is over and its slot free.
    func link(_ connection: LinkConnection, streamEnded edge: Edge, _ end: StreamEnd)
    /// The link begins to end: it takes nothing new. `linkDidEnd` follows. Not called for a connection that is refused
    /// before its handshake.
    func linkIsEnding(_ connection: LinkConnection)
    /// The connection is closed: nothing comes from it any more. What came before may still be on its way to edges.
    func linkDidEnd(_ connection: LinkConnection, _ end: LinkEnd)
    /// After `linkDidEnd`: all edges are closed too.
    func linkDidEmpty(_ connection: LinkConnection)
}
