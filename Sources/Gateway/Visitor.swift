internal import Admission
internal import ProxyProtocol
internal import Reactor
internal import Wire

/// Whose connection it is that came to a public listener.
struct Visitor: CustomStringConvertible {
    let address: SocketAddress
    /// Where the visitor connected to.
    let local: SocketAddress?
    /// The trusted proxy between it and us.
    let proxy: SocketAddress?

    init(address: SocketAddress, local: SocketAddress?, proxy: SocketAddress?) {
        self.address = address
        self.local = local
        self.proxy = proxy
    }

    /// The visitor that a proxy's header tells of; the proxy itself if that is whom it speaks for.
    init(_ header: ProxyHeader, proxy: SocketAddress, local: SocketAddress?) {
        guard case .proxied(var source, var destination) = header else {
            self.init(address: proxy, local: local, proxy: nil)
            return
        }
        // A proxy that listens for both families at once calls IPv4 visitors by mapped addresses. As such they would
        // all be of one /64, and so of one source.
        if source.unmapped.family == destination.unmapped.family {
            source = source.unmapped
            destination = destination.unmapped
        }
        self.init(
            address: SocketAddress(source) ?? proxy, local: SocketAddress(destination) ?? local, proxy: proxy)
    }

    var source: Source { Source(key: self.address.source, isLoopback: self.address.isLoopback) }

    /// How the log calls it.
    var description: String {
        if let proxy = self.proxy { "visitor \(self.address) through \(proxy)" } else { "visitor \(self.address)" }
    }
}

extension WireAddress {
    init(_ address: SocketAddress) {
        self.init(family: address.family.rawValue, bytes: (address.high, address.low), port: address.port)
    }
}

extension SocketAddress {
    init?(_ address: WireAddress) {
        guard let family = Family(rawValue: address.family) else { return nil }
        self.init(family: family, high: address.high, low: address.low, port: address.port)
    }
}
