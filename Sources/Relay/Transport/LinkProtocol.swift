internal import Reactor
package import Secure
internal import Timing
internal import Tunnel
internal import Version1

/// Which version of the protocol a link speaks: how it is encrypted, and which machine carries its streams.
package enum LinkProtocol {
    /// - Parameter serverName: as the dialling side, the host that was dialled.
    case version2(TLSContext, serverName: String?)
    case version1

    /// What the handshake of whoever dials begins with.
    var firstByte: UInt8 {
        switch self {
        // RFC 8446, 5.1: a handshake record.
        case .version2: 22
        case .version1: Version1Session.magic[0]
        }
    }

    /// Whether the peer's first message is complete. Until then no session is made for it.
    func greeting(_ bytes: RawSpan) -> ClientHello.State {
        switch self {
        case .version2: ClientHello.state(of: bytes)
        // Its session costs nothing until then.
        case .version1: .whole
        }
    }

    /// How long the kernel waits for a peer that takes no bytes (tcp(7), TCP_USER_TIMEOUT), in milliseconds. A peer of
    /// version 1 may do that because one of its sockets is slow.
    var userTimeout: UInt32 {
        if case .version1 = self { Self.userTimeout(ofVersion1: true) } else { Self.userTimeout(ofVersion1: false) }
    }

    static func userTimeout(ofVersion1 isVersion1: Bool) -> UInt32 { isVersion1 ? 120_000 : 30_000 }

    func channel(isServer: Bool) throws(SecurityError) -> any SecureChannel {
        switch self {
        case .version2(let context, let serverName): try TLSSession(context: context, serverName: serverName)
        case .version1: try Version1Session(isServer: isServer)
        }
    }

    /// - Parameter limits: of a link of version 2; one of version 1 takes those that it has too.
    func machine(
        role: Role, limits: LinkLimits, budget: ByteBudget?, now: Milliseconds
    ) -> any LinkMachine & ~Copyable {
        switch self {
        case .version2: Link(role: role, limits: limits, budget: budget, now: now)
        case .version1:
            Version1Link(
                role: role, limits: Version1Limits(readSize: EventLoop.readBufferSize, limits), budget: budget,
                now: now)
        }
    }
}
