internal import Control
internal import Glibc
internal import Logging
internal import Reactor
internal import Settings
internal import Wire

/// The state that `diglett status` shows.
protocol ReportingAgent: AnyObject {
    /// One line for people.
    var status: String { get }
    /// Whether the current link is up.
    var isConnected: Bool { get }
    var streamCount: Int { get }
}

/// Answers `diglett status` in a running agent.
final class AgentControl {
    /// The last report about a name.
    private enum NameState {
        case reachable(at: String?)
        case missing(reason: String)
    }

    private let settings: AgentSettings
    private let logger: Logger
    private let loop: EventLoop
    private let startedAt: UInt64
    private weak var agent: (any ReportingAgent)?
    private var exposes: [AgentSettings.Expose]
    private var names: [Name: NameState] = [:]
    private var server: ControlServer?

    init(loop: EventLoop, settings: AgentSettings, logger: Logger) {
        self.loop = loop
        self.settings = settings
        self.exposes = settings.exposes
        self.logger = logger
        self.startedAt = loop.now
    }

    /// Opens the control socket. If that fails, `diglett status` is unavailable and everything else works.
    ///
    /// - Parameter agent: held weakly.
    func open(_ agent: any ReportingAgent) {
        self.agent = agent
        let directory = self.settings.stateDirectory
        ControlPlaces.removeLeftovers(in: directory)
        let path = ControlPlaces.path(of: getpid(), in: directory)
        do throws(UVError) {
            self.server = try ControlServer(
                loop: self.loop, path: path, access: .init(mode: 0o600, group: nil), handler: self)
        } catch { self.logger.warning("'diglett status' is unavailable for this agent: \(path): \(error)") }
    }

    func close() {
        self.server?.close()
        self.server = nil
    }

    /// - Parameter address: nil if the gateway did not send a valid one. Version 1 sends none.
    func registered(_ name: Name, at address: String?) { self.names[name] = .reachable(at: address) }

    func missing(_ name: Name, _ reason: String) { self.names[name] = .missing(reason: reason) }

    /// Replaces the names.
    func changed(to exposes: [AgentSettings.Expose]) {
        self.exposes = exposes
        self.names = self.names.filter { name, _ in exposes.contains { $0.name == name } }
    }

    private var report: AgentReport {
        let isConnected = self.agent?.isConnected ?? false
        return AgentReport(
            version: AgentProgram.software, process: getpid(), gateway: self.settings.gateway.description,
            state: self.agent?.status ?? "", connected: isConnected,
            seconds: Int((self.loop.now - self.startedAt) / 1_000),
            streams: self.agent?.streamCount ?? 0,
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
                    reachable: isConnected && reason == nil, reason: reason)
            })
    }
}

extension AgentControl: ControlHandler {
    func asked(_ request: ControlRequest, by peer: ControlPeer, _ conversation: ControlConversation) {
        guard request.command == .status else {
            return conversation.fail("unknown request: an agent answers only 'status'")
        }
        conversation.succeed(self.report)
    }
}
