internal import Bytes
internal import Reactor
package import Secure
internal import Timing
internal import Tunnel
internal import Version1

/// The protocol version of a link, which determines its encryption and its multiplexer.
package enum LinkProtocol {
    /// - Parameter serverName: at the dialling side, the host that was dialled.
    case version2(TLSContext, serverName: String?)
    case version1

    /// The first byte of the dialling side's handshake.
    var firstByte: UInt8 {
        switch self {
        // RFC 8446, 5.1: a handshake record.
        case .version2: 22
        case .version1: Version1Session.magic[0]
        }
    }

    /// Whether the peer's first message is complete. No session is created before that.
    func greeting(_ bytes: RawSpan) -> ClientHello.State {
        switch self {
        case .version2: ClientHello.state(of: bytes)
        // A session of version 1 costs nothing until the message is complete, so it can be created at once.
        case .version1: .whole
        }
    }

    /// How long the kernel waits for a peer that takes no bytes, in milliseconds (tcp(7), TCP_USER_TIMEOUT). Longer in
    /// version 1, where a peer may take no bytes because one of its sockets is slow.
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

    /// Creates the multiplexer.
    ///
    /// - Parameter limits: the limits of version 2. Version 1 uses the subset that applies to it.
    func machine(
        role: Role, limits: LinkLimits, budget: ByteBudget?, blocks: BlockPool, now: Milliseconds
    ) -> any LinkMachine & ~Copyable {
        switch self {
        case .version2: Link(role: role, limits: limits, budget: budget, blocks: blocks, now: now)
        case .version1:
            Version1Link(
                role: role, limits: Version1Limits(readSize: EventLoop.readBufferSize, limits), budget: budget,
                now: now)
        }
    }
}
