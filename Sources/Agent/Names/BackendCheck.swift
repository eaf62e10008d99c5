internal import Logging
internal import Reactor
internal import Settings
internal import Wire

/// Tells the user when a backend is down at the time at which its name is registered. It may come up later, so that is
/// never an error.
final class BackendCheck {
    /// How long a list of the machine's sockets is good enough: as long as names of one agent are registered.
    private static let listMilliseconds: UInt64 = 1_000

    private let loop: EventLoop
    private let logger: Logger
    /// Backends that were looked at.
    private var checked: [Name: Backend] = [:]
    private var running: [Name: Connector] = [:]
    private var list: (ports: Set<UInt16>?, at: UInt64)?

    init(loop: EventLoop, logger: Logger) {
        self.loop = loop
        self.logger = logger
    }

    /// A name is registered.
    func registered(_ name: Name, _ backend: Backend) {
        guard self.checked[name] !== backend else { return }
        self.checked[name] = backend
        switch backend.endpoint {
        case .unix(let path):
            if ListeningSockets.hasUnix(path: path) == false { self.warn(backend, "does not exist") }
        case .host:
            // Where something listens, a connection could use it up. Where nothing is listed, a rule of a firewall may
            // still lead somewhere.
            if let port = backend.loopbackPort, self.ports?.contains(port) ?? true { return }
            self.connect(name, backend)
        }
    }

    private var ports: Set<UInt16>? {
        if let list = self.list, self.loop.now - list.at < Self.listMilliseconds { return list.ports }
        let ports = ListeningSockets.loopbackPorts()
        self.list = (ports, self.loop.now)
        return ports
    }

    private func connect(_ name: Name, _ backend: Backend) {
        self.running.removeValue(forKey: name)?.cancel()
        self.running[name] = backend.connect(loop: self.loop) { [weak self] result in
            self?.running[name] = nil
            switch result {
            case .success(let stream): stream.close()
            case .failure(.connectionRefused): self?.warn(backend, "refuses connections")
            case .failure(.timedOut): self?.warn(backend, "does not answer")
            case .failure(let error): self?.warn(backend, "cannot be reached (\(error))")
            }
        }
    }

    private func warn(_ backend: Backend, _ problem: String) {
        self.logger.warning("\(backend.endpoint) \(problem); visitors will be reset until it is up")
    }

    func close() {
        let running = self.running
        self.running = [:]
        for connector in running.values { connector.cancel() }
    }
}
