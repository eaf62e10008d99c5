internal import Logging
internal import Reactor
internal import Settings
internal import Wire

/// Tells the user when a backend is down at the time at which its name is registered. It may come up later, so that is
/// never an error.
final class BackendCheck {
    private let loop: EventLoop
    private let logger: Logger
    /// Backends that were looked at; those of other machines are connected once.
    private var checked: [Name: Backend] = [:]
    private var running: [Name: Connector] = [:]

    init(loop: EventLoop, logger: Logger) {
        self.loop = loop
        self.logger = logger
    }

    /// A name is registered.
    func registered(_ name: Name, _ backend: Backend) {
        guard self.checked[name] !== backend else { return }
        self.checked[name] = backend
        if let isThere = backend.isListening {
            if !isThere { self.warn(backend, backend.isUnixSocket ? "is not there" : "refuses connections") }
            return
        }
        guard !backend.isOnLoopback else { return }
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
