internal import GatewayCore
internal import Reactor
internal import Settings
internal import Wire

/// Decides which sources are exempt from limits per source.
struct SourceRules: Sendable {
    /// `trusted-networks`: addresses shared by many agents or visitors, such as a proxy or an office.
    let trusted: [Network]
    /// `accept-proxy-protocol`: proxies whose PROXY headers are trusted.
    let proxies: [Network]

    /// Whether this address belongs to a trusted proxy.
    func isProxy(_ peer: SocketAddress) -> Bool {
        let address = WireAddress(peer)
        return self.proxies.contains { $0.contains(address) }
    }

    /// The source of a connection to the agent port. A trusted proxy is exempt: a PROXY header with the agent's own
    /// address may follow, and a proxy that sends none connects for many agents.
    func source(ofAgentAt peer: SocketAddress, at local: SocketAddress?) -> Source {
        self.isProxy(peer) ? Source(key: peer.source, standing: .trusted) : self.source(of: peer, at: local)
    }

    /// - Parameter local: the address that the peer connected to; nil if a proxy reported the peer. A peer with the
    ///   same address is local, as on loopback.
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
