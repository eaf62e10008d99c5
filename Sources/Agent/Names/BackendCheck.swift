internal import Logging
internal import Reactor
internal import Settings
internal import Wire

/// Warns the user if a backend is down when its name is registered. This is never an error, because the backend may
/// start later.
final class BackendCheck {
    /// How long a list of the machine's sockets is reused: while the names of one agent are registered.
    private static let listMilliseconds: UInt64 = 1_000

    private let loop: EventLoop
    private let logger: Logger
    /// Backends that were already checked.
    private var checked: [Name: Backend] = [:]
    private var running: [Name: Connector] = [:]
    private var list: (ports: Set<UInt16>?, at: UInt64)?

    init(loop: EventLoop, logger: Logger) {
        self.loop = loop
        self.logger = logger
    }

    /// Checks the backend of a name that has been registered.
    func registered(_ name: Name, _ backend: Backend) {
        guard self.checked[name] !== backend else { return }
        self.checked[name] = backend
        switch backend.endpoint {
        case .unix(let path):
            if ListeningSockets.hasUnix(path: path) == false { self.warn(backend, "does not exist") }
        case .host:
            // If something listens, do not connect: that could use up a service that accepts one connection. If nothing
            // is listed, a firewall rule may still forward the port.
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
