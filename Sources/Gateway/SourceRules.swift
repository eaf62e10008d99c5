internal import Admission
internal import Reactor
internal import Settings
internal import Wire

/// Decides which sources are exempt from limits of one source.
struct SourceRules {
    /// `trusted-networks`: addresses that many agents or visitors share, of a proxy or an office for example.
    let trusted: [Network]

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
