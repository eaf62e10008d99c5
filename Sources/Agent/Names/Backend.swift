internal import ProxyProtocol
internal import Reactor
internal import Settings
internal import Wire

/// A local service that a name leads to.
///
/// Remembers the address that worked last, so that a backend which listens on one of localhost's addresses only is
/// not asked at the other for every visitor.
final class Backend {
    /// The time in which a backend has to take a connection.
    private static let connectMilliseconds: UInt64 = 5_000

    let endpoint: Endpoint
    private let proxyProtocol: ProxyVersion?
    private var preferred: SocketAddress?

    init(_ expose: AgentSettings.Expose) {
        self.proxyProtocol = expose.proxyProtocol
        switch expose.backend {
        case .tcp(let hostPort): self.endpoint = .host(hostPort.host, port: hostPort.port)
        case .unix(let path): self.endpoint = .unix(path: path)
        }
    }

    /// What the backend gets before the visitor's bytes: whose they are, if it wants to know.
    func preface(of open: Open) -> [UInt8] {
        guard let version = self.proxyProtocol else { return [] }
        return ProxyHeader(source: open.visitor, destination: open.local).encoded(version)
    }

    /// Its port, if it is one of a loopback address.
    var loopbackPort: UInt16? {
        switch self.endpoint {
        case .unix: nil
        case .host("localhost", let port): port
        case .host(let host, let port): SocketAddress(host, port: port)?.isLoopback ?? false ? port : nil
        }
    }

    func connect(loop: EventLoop, completion: @escaping (Result<SocketStream, UVError>) -> Void) -> Connector {
        var plan = Connector.Plan()
        plan.preferred = self.preferred
        plan.resetsAbandoned = true
        return Connector.connect(
            loop: loop, to: self.endpoint, plan: plan, timeout: Self.connectMilliseconds
        ) { [weak self] result in
            if case .success(let stream) = result, let address = stream.peerAddress { self?.preferred = address }
            completion(result)
        }
    }
}
