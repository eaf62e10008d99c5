import Foundation
import GatewayCore
import Journal
import Modules
import Reactor
import Relay
import Settings
import Supervision
import TestSupport
import Testing
import Tunnel
import Wire

@testable import Gateway

/// An authenticator whose verdicts are set by the test.
final class ScriptedAuthenticator: Authenticator {
    var verdict: LoginVerdict?
    private(set) var requests: [LoginRequest] = []

    func authenticate(
        _ request: LoginRequest, completion: @escaping (LoginVerdict) -> Void
    ) -> (any Cancellable)? {
        self.requests.append(request)
        if let verdict = self.verdict { completion(verdict) }
        return nil
    }

    func authorize(_ request: NameRequest, completion: @escaping (NameVerdict) -> Void) -> (any Cancellable)? {
        completion(.granted(ports: []))
        return nil
    }

    func onChange(_ rightsChanged: @escaping () -> Void) {}
    func revocation(of grant: LoginGrant) -> Revocation? { nil }
    func reload() {}
    func close() {}
}

/// The hub's sessions and names without a worker. It collects the orders.
final class HubFixture {
    let loop: EventLoop
    let log = LogLines()
    let authenticator = ScriptedAuthenticator()
    let names: GatewayNames
    let agents: AgentSessions
    let metrics = GatewayMetrics()
    private let directory: URL
    private final class Orders { var all: [WorkerOrder] = [] }
    private let collected: Orders

    /// - Parameter descriptors: the number of file descriptors that the gateway divides among its limits.
    init(descriptors: Int = 4_096) throws {
        self.loop = try EventLoop()
        self.directory = FileManager.default.temporaryDirectory.appendingPathComponent("diglett-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: self.directory, withIntermediateDirectories: true)
        var options = CommandOptions()
        options["state-dir"] = [self.directory.path]
        options["expose-bind"] = ["127.0.0.1"]
        let settings = try GatewaySettings(options)
        let plan = ResourcePlan(settings.limits, descriptors: descriptors)
        let log = PeerLog(self.log.logger, loop: self.loop)
        let limits = GatewayMachine.Limits(settings, plan)
        let registrars = RegistrarSet([])
        let store = ListenerStore(
            loop: self.loop, manager: .absent(loop: self.loop, logger: self.log.logger), holdMilliseconds: 0,
            logger: self.log.logger)
        let collected = Orders()
        self.collected = collected
        self.names = GatewayNames(
            loop: self.loop, settings: settings, limits: limits, metrics: self.metrics, log: log,
            authenticator: self.authenticator, registrars: registrars,
            listeners: try PublicListeners(
                hosts: try PublicHosts(settings.exposeBind), ports: limits.ports, settings: settings, store: store,
                registrars: registrars),
            ports: PortStore(
                loop: self.loop, path: self.directory.appendingPathComponent("ports.json").path,
                logger: self.log.logger),
            send: { collected.all.append($0) })
        self.agents = AgentSessions(
            .init(
                loop: self.loop, limits: settings.limits, plan: plan,
                sources: SourceRules(trusted: [], proxies: []), names: self.names, authenticator: self.authenticator,
                metrics: self.metrics, log: log, budget: ByteBudget(limit: 1 << 20),
                send: { collected.all.append($0) }))
        self.names.sessions = self.agents
    }

    /// The orders since the last call.
    func takeOrders() -> [WorkerOrder] {
        defer { self.collected.all = [] }
        return self.collected.all
    }

    var hasOrders: Bool { !self.collected.all.isEmpty }

    func admit(_ host: String) throws -> AgentSession? {
        self.agents.admit(try #require(SocketAddress(host, port: 4_000)), at: nil, isVersion1: false)
    }

    /// Sends a LOGIN with a token.
    func logIn(_ session: AgentSession, run: UInt64 = 1) {
        let login = Login(
            method: .token, instanceKey: [UInt8](repeating: 1, count: Login.instanceKeySize), run: run, token: "t")
        self.agents.loginArrived(session, .version2(login))
    }

    func finish() {
        for id in self.agents.sessions.keys.sorted() {
            if let session = self.agents[id] { self.agents.ended(session, .ended(.drain, "")) }
        }
        self.agents.close()
        self.names.close()
        self.loop.run()
        self.loop.close()
        try? FileManager.default.removeItem(at: self.directory)
    }
}
