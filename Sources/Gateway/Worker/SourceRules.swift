internal import GatewayCore
internal import Reactor
internal import Settings
internal import Wire

/// Decides which sources are exempt from limits of one source.
struct SourceRules: Sendable {
    /// `trusted-networks`: addresses that many agents or visitors share, of a proxy or an office for example.
    let trusted: [Network]
    /// `accept-proxy-protocol`: proxies whose PROXY headers are believed.
    let proxies: [Network]

    func isProxy(_ peer: SocketAddress) -> Bool {
        let address = WireAddress(peer)
        return self.proxies.contains { $0.contains(address) }
    }

    /// The source of a connection to the agent port. A trusted proxy's own source has no bounds: a PROXY header may
    /// follow, and a proxy that sends none connects for many agents.
    func source(ofAgentAt peer: SocketAddress, at local: SocketAddress?) -> Source {
        self.isProxy(peer) ? Source(key: peer.source, standing: .trusted) : self.source(of: peer, at: local)
    }

    /// - Parameter local: the address that the peer connected to; nil when a proxy reported the peer. A peer with the same
    ///   address is local, like one on loopback.
    func source(of peer: SocketAddress, at local: SocketAddress?) -> Source {
        let address = WireAddress(peer)
        let standing: Source.Standing =
            if self.trusted.contains(where: { $0.contains(address) }) {
                .trusted
            } else if peer.isLoopback || local.map({ $0.host == peer.host }) ?? false {
                .ownMachine
            } else {
                .stranger
            }
        return Source(key: peer.source, standing: standing)
    }
}
