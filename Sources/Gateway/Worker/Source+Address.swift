internal import GatewayCore
internal import Reactor
internal import Settings
internal import Wire

/// The one place that maps between addresses and the sources by which limits, penalties and the log count them. The rules
/// are those of ``IPAddress/source``.
extension Source {
    /// The first of its addresses, and how many bits all of them have in common.
    private var network: (first: WireAddress, prefix: Int) { WireAddress.network(ofSource: self.key) }

    /// `192.0.2.1` or `2001:db8::/64`, as the log and `ctl penalties` show it.
    var text: String {
        let (first, prefix) = self.network
        return first.family == 4 ? first.host : "\(first.host)/\(prefix)"
    }

    /// Whether `ctl unban` of a network reaches this source. An operator may write the address from the log, which is only
    /// one of the source's, or a network of such addresses.
    func isReached(by network: Network) -> Bool {
        let first = self.network.first
        return network.address.source == self.key || network.contains(first) || network.contains(first.translated)
    }
}
