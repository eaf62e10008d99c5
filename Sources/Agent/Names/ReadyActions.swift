internal import Journal
internal import Logging
internal import Reactor
internal import Settings
internal import Wire

/// Actions for the moment when all names are reachable: writes their addresses to a file and starts a program.
final class ReadyActions {
    private let loop: EventLoop
    private let log: PeerLog
    /// For lines that the gateway does not cause.
    private var logger: Logger { self.log.logger }
    private let source: PeerSource
    private var names: [Name]
    private let urlFile: String?
    private let command: [String]
    /// The address of each reachable name.
    private var addresses: [Name: String] = [:]
    private var hasWritten = false
    /// Addresses that could not be written yet.
    private var unwritten: [String]?
    private var hasStarted = false
    private var process: ChildProcess?

    init(loop: EventLoop, settings: AgentSettings, log: PeerLog) {
        self.loop = loop
        self.log = log
        self.source = .gateway("\(settings.gateway)")
        self.names = settings.exposes.map(\.name)
        self.urlFile = settings.urlFile
        self.command = settings.execOnReady
    }

    /// Removes the stale file of an agent that was killed.
    func begin() { self.removeFile() }

    private func removeFile() {
        guard let file = self.urlFile else { return }
        do throws(SettingsError) { try FileAccess.remove(file) } catch { self.logger.warning("\(error)") }
    }

    /// Retries a failed write. Call it about once a second.
    func tick() {
        if let addresses = self.unwritten { self.write(addresses) }
    }

    /// A name is reachable, perhaps at a new address.
    ///
    /// - Parameter address: nil if unknown. Scripts then receive an empty text.
    func registered(_ name: Name, at address: String?) {
        guard self.urlFile != nil || !self.command.isEmpty else { return }
        let address = address ?? ""
        guard self.addresses[name] != address else { return }
        self.addresses[name] = address
        self.finishIfComplete()
    }

    /// Replaces the names and their order.
    func changed(to names: [Name]) {
        self.names = names
        self.addresses = self.addresses.filter { names.contains($0.key) }
        self.unwritten = nil
        self.finishIfComplete()
    }

    private func finishIfComplete() {
        let addresses = self.names.compactMap { self.addresses[$0] }
        guard addresses.count == self.names.count else { return }
        self.write(addresses)
        self.start(addresses)
    }

    /// Writes one line for each name, in the order of the names.
    private func write(_ addresses: [String]) {
        guard let file = self.urlFile else { return }
        do throws(SettingsError) {
            let text = addresses.map { $0 + "\n" }.joined()
            try FileAccess.replace(file, with: Array(text.utf8), mode: 0o644, durable: false)
            self.hasWritten = true
            self.unwritten = nil
        } catch {
            // Log it once, not with each retry.
            if self.unwritten != addresses {
                self.log.write(.error, .detail, of: self.source, "cannot write the URL file: \(error)")
            }
            self.unwritten = addresses
        }
    }

    private func start(_ addresses: [String]) {
        guard !self.command.isEmpty, !self.hasStarted else { return }
        self.hasStarted = true
        let pairs = zip(self.names, addresses).map { "\($0)=\($1)" }
        var command = ChildCommand(
            arguments: self.command,
            environment: ["DIGLETT_URL": addresses[0], "DIGLETT_URLS": pairs.joined(separator: "\n")], timeout: nil)
        command.isUsersOwn = true
        self.process = ChildProcess.run(loop: self.loop, command) { [unowned self] result in
            self.process = nil
            switch result {
            case .success(let outcome) where outcome.end == .exited(code: 0):
                self.logger.debug("the exec-on-ready command ended")
            case .success(let outcome): self.logger.warning("the exec-on-ready command \(outcome)")
            case .failure(let failure): self.logger.error("the exec-on-ready command \(failure)")
            }
        }
    }

    /// Stops the command and removes the file, because the agent exits.
    func close() {
        self.process?.cancel()
        self.process = nil
        self.unwritten = nil
        guard self.hasWritten else { return }
        self.hasWritten = false
        self.removeFile()
    }
}
