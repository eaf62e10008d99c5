internal import Reactor
internal import Settings
internal import Wire

/// A name's listener, as a proxy is told of it.
enum Upstream {
    case tcp(HostPort)
    case unix(path: String)
}

extension RouteSettings {
    /// The host under which visitors find a name.
    func host(of name: Name) -> String { "\(name).\(self.domain)" }

    /// By what the proxy reaches a name.
    func upstream(_ exposure: PublicExposure) throws(RegistrarError) -> Upstream {
        switch (self.via, exposure.socket, exposure.address) {
        case (.unix, .some(let path), _): return .unix(path: path)
        case (.tcp, _, .some(let address)):
            return .tcp(HostPort(host: self.upstreamHost(address), port: address.port))
        case (.unix, nil, _), (.tcp, _, nil): throw RegistrarError(reason: "the name has no listener of that kind")
        }
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
