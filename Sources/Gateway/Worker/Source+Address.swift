internal import GatewayCore
internal import Reactor
internal import Settings
internal import Wire

/// The only conversion between addresses and the sources that limits, penalties and the log count. ``IPAddress/source``
/// has the rules.
extension Source {
    /// The first address of the source, and the prefix length that its addresses share.
    private var network: (first: WireAddress, prefix: Int) { WireAddress.network(ofSource: self.key) }

    /// `192.0.2.1` or `2001:db8::/64`, as in the log and `ctl penalties`.
    var text: String {
        let (first, prefix) = self.network
        return first.family == 4 ? first.host : "\(first.host)/\(prefix)"
    }

    /// Whether `ctl unban NETWORK` applies to this source. The operator may give an address from the log, which is only
    /// one address of the source, or a network of such addresses.
    func isReached(by network: Network) -> Bool {
        let first = self.network.first
        return network.address.source == self.key || network.contains(first) || network.contains(first.translated)
    }
}
