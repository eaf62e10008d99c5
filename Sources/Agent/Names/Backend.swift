internal import ProxyProtocol
internal import Reactor
internal import Settings
internal import Wire

/// The backend of a name.
///
/// It remembers the address that worked last. If a backend listens on only one of localhost's addresses, the other one
/// is then not tried for every visitor.
final class Backend {
    /// Time limit for connecting to a backend.
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

    /// The bytes that the backend receives before the visitor's: a PROXY header if one is configured.
    func preface(of open: Open) -> [UInt8] {
        guard let version = self.proxyProtocol else { return [] }
        return ProxyHeader(source: open.visitor, destination: open.local).encoded(version)
    }

    /// The backend's port if its address is a loopback address, else nil.
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
