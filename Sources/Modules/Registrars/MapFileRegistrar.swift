package import Reactor
package import Settings
internal import Wire

/// Maintains a map file for nginx or HAProxy, with one line per name, and runs a command that makes the proxy read it.
///
/// Changes of one turn, and changes that arrive while the command runs or within the pause after its start, share one
/// file and one command. A proxy reload is expensive, but agents can cause any number of changes at no cost.
package final class MapFileRegistrar: Registrar {
    /// Pause between two commands. A withdrawal must reach the proxy within two seconds.
    private static let pauseMilliseconds: UInt64 = 500

    private let loop: EventLoop
    private let settings: MapFileSettings
    /// The lines of the published names, by host.
    private var lines: [String: String] = [:]
    private var waiting: [Waiter] = []
    /// Callers whose changes are in the file that the running command makes the proxy read.
    private var served: [Waiter] = []
    private var process: ChildProcess?
    private var isScheduled = false
    private var throttle: Throttle?

    package init(loop: EventLoop, settings: MapFileSettings) {
        self.loop = loop
        self.settings = settings
        self.throttle = Throttle(loop: loop, milliseconds: Self.pauseMilliseconds) { [unowned self] in self.serve() }
    }

    package var label: String { "\(self.settings.style == .nginx ? "nginx" : "haproxy") (\(self.settings.file))" }

    private final class Waiter: Cancellable {
        var completion: ((Result<Void, RegistrarError>) -> Void)?
        init(_ completion: @escaping (Result<Void, RegistrarError>) -> Void) { self.completion = completion }
        func cancel() { self.completion = nil }
    }

    /// The file is always written as a whole, so nothing of a former run remains.
    package func reset(
        keeping: [PublicExposure], completion: @escaping (Result<[PublicExposure], RegistrarError>) -> Void
    ) -> (any Cancellable)? {
        let hosts = Set(keeping.map { self.settings.route.host(of: $0.name) })
        self.lines = self.lines.filter { hosts.contains($0.key) }
        return self.apply { result in completion(result.map { [] }) }
    }

    package func publish(
        _ exposure: PublicExposure, completion: @escaping (Result<Void, RegistrarError>) -> Void
    ) -> (any Cancellable)? {
        let host = self.settings.route.host(of: exposure.name)
        do throws(RegistrarError) {
            switch (self.settings.style, try self.settings.route.upstream(exposure)) {
            case (.nginx, .tcp(let hostPort)): self.lines[host] = "\(host) \(hostPort);"
            case (.nginx, .unix(let path)): self.lines[host] = "\(host) unix:\(path);"
            case (.haproxy, .tcp(let hostPort)): self.lines[host] = "\(host) \(hostPort.port)"
            case (.haproxy, .unix): throw RegistrarError(reason: "HAProxy cannot use unix sockets from a map")
            }
        } catch {
            completion(.failure(error))
            return nil
        }
        return self.apply(completion)
    }

    package func withdraw(
        _ exposure: PublicExposure, completion: @escaping (Result<Void, RegistrarError>) -> Void
    ) -> (any Cancellable)? {
        self.lines[self.settings.route.host(of: exposure.name)] = nil
        return self.apply(completion)
    }

    private func apply(_ completion: @escaping (Result<Void, RegistrarError>) -> Void) -> any Cancellable {
        let waiter = Waiter(completion)
        self.waiting.append(waiter)
        self.schedule()
        return waiter
    }

    private func schedule() {
        guard self.process == nil, !self.isScheduled, !self.waiting.isEmpty else { return }
        self.isScheduled = true
        self.loop.atTurnEnd(self)
    }

    private func serve() {
        guard self.process == nil, !self.waiting.isEmpty else { return }
        self.served = self.waiting
        self.waiting = []
        let text = self.lines.values.sorted().map { $0 + "\n" }.joined()
        do throws(SettingsError) {
            // World-readable, because the proxy runs as another user.
            try FileAccess.replace(self.settings.file, with: Array(text.utf8), mode: 0o644, durable: false)
        } catch { return self.finish(.failure(RegistrarError(reason: error.description))) }
        let command = ChildCommand(arguments: self.settings.reload, timeout: self.settings.timeout)
        self.process = ChildProcess.run(loop: self.loop, command) { [weak self] result in
            guard let self else { return }
            self.process = nil
            self.finish(Self.judge(result, self.settings.reload[0]))
        }
    }

    private static func judge(
        _ result: Result<ChildOutcome, ChildFailure>, _ program: String
    ) -> Result<Void, RegistrarError> {
        switch result {
        case .failure(let failure): return .failure(RegistrarError(reason: "\(program) \(failure)"))
        case .success(let outcome):
            if case .exited(code: 0) = outcome.end { return .success(()) }
            let words = String(decoding: outcome.standardError.suffix(300), as: UTF8.self)
            let last = words.split(separator: "\n").last.map(String.init) ?? ""
            return .failure(RegistrarError(reason: "\(program) \(outcome): \(PeerText.escaped(last))"))
        }
    }

    private func finish(_ result: Result<Void, RegistrarError>) {
        let served = self.served
        self.served = []
        for waiter in served { waiter.completion?(result) }
        self.schedule()
    }

    package func close() {
        self.throttle?.close()
        self.throttle = nil
        self.process?.cancel()
        self.process = nil
        self.waiting = []
        self.served = []
    }
}

extension MapFileRegistrar: TurnEndHandler {
    package func turnDidEnd() {
        self.isScheduled = false
        self.throttle?.request()
    }
}
