internal import GatewayCore
internal import ProxyProtocol
internal import Reactor
internal import Wire

/// Where a connection to a public listener comes from.
enum Origin: CustomStringConvertible {
    case address(SocketAddress)
    /// A local program, through the name's unix socket. File permissions limit this to the operator's own programs.
    case socket

    /// Nil if the connection is already gone.
    init?(_ stream: SocketStream, at listener: SocketListener) {
        switch listener.place {
        case .unix: self = .socket
        case .tcp:
            guard let peer = stream.peerAddress else { return nil }
            self = .address(peer)
        }
    }

    var address: SocketAddress? {
        if case .address(let address) = self { address } else { nil }
    }

    var description: String {
        switch self {
        case .address(let address): address.description
        case .socket: "the unix socket"
        }
    }
}

/// The client of a connection to a public listener.
struct Visitor: CustomStringConvertible {
    /// Nil for a unix socket, unless a PROXY header gives the address.
    let address: SocketAddress?
    /// The address that the visitor connected to.
    let local: SocketAddress?
    /// The trusted proxy between the visitor and the gateway.
    let proxy: Origin?
    let source: Source
    /// When the visitor became known, in nanoseconds of the monotonic clock.
    let arrival = EventLoop.nanoseconds

    private init(address: SocketAddress?, local: SocketAddress?, proxy: Origin?, _ rules: SourceRules) {
        // Unix sockets are local, like loopback. A destination reported by a proxy is not an address of this machine.
        self.source =
            address.map { rules.source(of: $0, at: proxy == nil ? local : nil) }
            ?? Source(key: 0, standing: .ownMachine)
        self.address = address
        self.local = local
        self.proxy = proxy
    }

    init(_ origin: Origin, local: SocketAddress?, _ rules: SourceRules) {
        switch origin {
        case .address(let address): self.init(address: address, local: local, proxy: nil, rules)
        case .socket: self.init(address: nil, local: nil, proxy: origin, rules)
        }
    }

    /// The visitor in a PROXY header, or the proxy itself if it speaks for no client.
    init(_ header: ProxyHeader, proxy: Origin, local: SocketAddress?, _ rules: SourceRules) {
        guard case .proxied(let source, let destination) = header else {
            self.init(proxy, local: local, rules)
            return
        }
        self.init(
            address: SocketAddress(source) ?? proxy.address, local: SocketAddress(destination) ?? local, proxy: proxy,
            rules)
    }

    func isBanned(_ bans: BanList) -> Bool { self.address.map { bans.contains($0) } ?? false }

    /// How logs name it.
    var description: String {
        let visitor = self.address.map { "visitor \($0)" } ?? "a visitor"
        return self.proxy.map { "\(visitor) through \($0)" } ?? visitor
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
