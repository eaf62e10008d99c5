internal import Control
internal import Glibc
internal import Logging
internal import Reactor
internal import Settings
internal import Wire

/// What `diglett status` asks of a running agent.
final class AgentControl {
    /// What is known of a name.
    private enum NameState {
        case reachable(at: String?)
        case missing(reason: String)
    }

    private let settings: AgentSettings
    private let logger: Logger
    private let loop: EventLoop
    private let startedAt: UInt64
    /// What the agent does now, in words, whether it has a link, and its streams.
    private let now: () -> (state: String, isConnected: Bool, streams: Int)
    private var exposes: [AgentSettings.Expose]
    private var names: [Name: NameState] = [:]
    private var server: ControlServer?

    init(
        loop: EventLoop, settings: AgentSettings, logger: Logger,
        now: @escaping () -> (state: String, isConnected: Bool, streams: Int)
    ) {
        self.loop = loop
        self.settings = settings
        self.exposes = settings.exposes
        self.logger = logger
        self.startedAt = loop.now
        self.now = now
    }

    /// Without the socket there is no status, and all else is as it would be.
    func open() {
        let directory = self.settings.stateDirectory
        ControlPlaces.removeLeftovers(in: directory)
        let path = ControlPlaces.path(of: getpid(), in: directory)
        do throws(UVError) {
            self.server = try ControlServer(
                loop: self.loop, path: path, access: .init(mode: 0o600, group: nil), handler: self)
        } catch { self.logger.warning("'diglett status' cannot ask this agent: \(path): \(error)") }
    }

    func close() {
        self.server?.close()
        self.server = nil
    }

    /// - Parameter address: nil when the gateway did not send a valid one; with version 1 it sends none.
    func registered(_ name: Name, at address: String?) { self.names[name] = .reachable(at: address) }

    func missing(_ name: Name, _ reason: String) { self.names[name] = .missing(reason: reason) }

    /// From now on these are the names.
    func changed(to exposes: [AgentSettings.Expose]) {
        self.exposes = exposes
        self.names = self.names.filter { name, _ in exposes.contains { $0.name == name } }
    }

    private var report: AgentReport {
        let now = self.now()
        return AgentReport(
            version: AgentProgram.software, process: getpid(), gateway: self.settings.gateway.description,
            state: now.state, connected: now.isConnected, seconds: Int((self.loop.now - self.startedAt) / 1_000),
            streams: now.streams,
            names: self.exposes.map { expose in
                var address: String?
                var reason: String? = "not registered yet"
                switch self.names[expose.name] {
                case .reachable(let known): (address, reason) = (known, nil)
                case .missing(let why): reason = why
                case nil: break
                }
                return AgentReport.Name(
                    name: expose.name.text, backend: expose.backend.description, address: address,
                    reachable: now.isConnected && reason == nil, reason: reason)
            })
    }
}

extension AgentControl: ControlHandler {
    func asked(_ request: ControlRequest, by peer: ControlPeer, _ conversation: ControlConversation) {
        guard request.command == .status else { return conversation.fail("an agent tells its status only") }
        conversation.succeed(self.report)
    }
}
