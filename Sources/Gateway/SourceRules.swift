internal import Admission
internal import Reactor
internal import Settings
internal import Wire

/// Tells for whom the bounds of one source hold.
struct SourceRules {
    /// `trusted-networks`: of proxies, offices or monitors, behind each of whose addresses many may be.
    let trusted: [Network]

    /// - Parameter local: where the peer connected to; nil when somebody else says who the peer is. A peer with the same
    ///   address is a program of this machine, as one at loopback is.
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
