package import Reactor
package import Secure
package import Tunnel
package import Wire

/// Why a link's connection ended.
package enum LinkEnd: Equatable, CustomStringConvertible {
    /// The peer closed the connection.
    case closedByPeer
    case failed(UVError)
    /// The handshake or the encryption failed.
    case security(SecurityError)
    /// The first byte does not belong to the expected handshake.
    case otherProtocol(firstByte: UInt8)
    /// The peer violated the protocol.
    case violation(PeerViolation)
    /// We ended it, with this code and text.
    case ended(ErrorCode, String)
    /// The peer ended it with a GOAWAY.
    case goAway(GoAway)

    /// The code with which the running streams end.
    var streamCode: ErrorCode {
        switch self {
        case .ended(.none, _): .withdrawn
        case .ended(let code, _): code
        case .goAway(let goAway): goAway.code == .none ? .withdrawn : goAway.code
        case .violation(let violation): violation.code
        case .closedByPeer, .failed, .security, .otherProtocol: .dead
        }
    }

    /// Whether streams end at once: the peer violated the protocol, or the operator or the peer's program ended the
    /// link. Otherwise bytes that were already received are still delivered.
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
        case .otherProtocol(let byte): "not the diglett protocol, the first byte is 0x\(String(byte, radix: 16))"
        case .violation(let violation): "\(violation.code): \(violation.detail)"
        case .ended(let code, let text): Self.text(code, text)
        case .goAway(let goAway): Self.text(goAway.code, PeerText.escaped(goAway.text))
        }
    }

    /// Omits the code of an orderly end, which explains nothing.
    private static func text(_ code: ErrorCode, _ text: String) -> String {
        text.isEmpty ? "\(code)" : code == .none ? text : "\(code): \(text)"
    }
}
