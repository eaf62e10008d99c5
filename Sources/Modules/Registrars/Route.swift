internal import Reactor
internal import Settings
internal import Wire

/// The address of a name's listener, as given to a proxy.
enum Upstream {
    case tcp(HostPort)
    case unix(path: String)
}

extension RouteSettings {
    /// The host name under which visitors reach a name.
    func host(of name: Name) -> String { "\(name).\(self.domain)" }

    /// The listener that the proxy must connect to. Throws if the name has no listener of the configured kind.
    func upstream(_ exposure: PublicExposure) throws(RegistrarError) -> Upstream {
        switch (self.via, exposure.socket, exposure.address) {
        case (.unix, .some(let path), _): return .unix(path: path)
        case (.tcp, _, .some(let address)):
            return .tcp(HostPort(host: self.upstreamHost(address), port: address.port))
        case (.unix, nil, _), (.tcp, _, nil): throw RegistrarError(reason: "the name has no listener of that kind")
        }
    }

    /// The host for the proxy to connect to. A listener on all addresses is reached by the loopback address: without
    /// `gatewayHost` the proxy is on the same machine.
    private func upstreamHost(_ address: SocketAddress) -> String {
        if let host = self.gatewayHost { return host }
        switch address.host {
        case "0.0.0.0": return "127.0.0.1"
        case "::": return "::1"
        case let host: return host
        }
    }
}
