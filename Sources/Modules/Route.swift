internal import Reactor
internal import Settings
internal import Wire

extension RouteSettings {
    /// The host under which visitors find a name.
    func host(of name: Name) -> String { "\(name).\(self.domain)" }

    /// `HOST:PORT` by which the proxy reaches a name's listener.
    func upstream(_ address: SocketAddress) -> String {
        HostPort(host: self.upstreamHost(address), port: address.port).description
    }

    /// A listener on all addresses is reached at the loopback one, as the proxy is on the same machine unless the
    /// operator says where the gateway is.
    private func upstreamHost(_ address: SocketAddress) -> String {
        if let host = self.gatewayHost { return host }
        switch address.host {
        case "0.0.0.0": return "127.0.0.1"
        case "::": return "::1"
        case let host: return host
        }
    }
}
