import Agent
import AgentCore
import Foundation
import Gateway
import Logging
import ProxyProtocol
import Reactor
import Settings
import Supervision
import Synchronization
import TestSupport
import Testing
import Wire

/// Gateway, agent, backend and visitor on one loop of one process, so that the sanitizers see all of it.
final class World {
    let loop: EventLoop
    let directory: String
    let gateway: GatewayServer
    let log: LogLines
    private(set) var agents: [AgentProgram] = []

    /// - Parameters:
    ///   - proxies: networks from which visitors come with a PROXY header.
    ///   - sockets: the listeners that a service manager has kept for the gateway.
    ///   - hold: milliseconds for which they are held.
    init(
        ports: String? = nil, proxies: [String] = [], configuration: String? = nil,
        sockets: InheritedSockets = InheritedSockets(), hold: UInt64 = ListenerStore.holdMilliseconds
    ) throws {
        self.loop = try EventLoop()
        self.directory =
            FileManager.default.temporaryDirectory.appendingPathComponent("diglett-\(UUID().uuidString)").path
        self.log = LogLines()
        var options = CommandOptions()
        options["listen"] = ["127.0.0.1:0"]
        options["listen-v1"] = ["127.0.0.1:0"]
        options["state-dir"] = ["\(self.directory)/gateway"]
        options["expose-ports"] = ports.map { [$0] } ?? []
        options["accept-proxy-protocol"] = proxies
        if let configuration {
            try FileManager.default.createDirectory(atPath: self.directory, withIntermediateDirectories: true)
            options.configuration = "\(self.directory)/server.toml"
            try configuration.write(toFile: "\(self.directory)/server.toml", atomically: true, encoding: .utf8)
        }
        self.gateway = try GatewayServer(
            loop: self.loop, settings: try GatewaySettings(options), logger: self.log.logger,
            manager: ServiceManager(
                loop: self.loop, environment: ServiceEnvironment(processID: 0), sockets: sockets,
                logger: self.log.logger),
            holdMilliseconds: hold)
        try self.gateway.start()
    }

    func startAgent(
        _ names: [String], state: String = "agent", once: Bool = false, version1: Bool = false,
        proxyProtocol: ProxyVersion? = nil
    ) throws -> AgentProgram {
        var options = CommandOptions()
        let addresses = version1 ? self.gateway.version1Addresses : self.gateway.agentAddresses
        options["gateway"] = [try #require(addresses.first).description]
        options["v1"] = version1 ? [""] : []
        options["expose"] = names
        options["proxy-protocol"] = proxyProtocol.map { [$0.rawValue] } ?? []
        options["state-dir"] = ["\(self.directory)/\(state)"]
        options["once"] = once ? [""] : []
        options["output"] = ["json"]
        let agent = try AgentProgram(
            loop: self.loop, settings: try AgentSettings(options), logger: self.log.logger, ask: nil)
        self.agents.append(agent)
        agent.start()
        return agent
    }

    /// Waits until the gateway has logged this registration of the name. Returns the port.
    func port(of name: String, registration: Int = 1) throws -> UInt16 {
        let prefix = "register domain '\(name)' -> '"
        #expect(self.loop.run { self.log.lines.filter { $0.hasPrefix(prefix) }.count >= registration })
        let line = try #require(self.log.lines.last { $0.hasPrefix(prefix) })
        return try #require(UInt16(line.dropFirst(prefix.count).dropLast()))
    }

    /// Ends all programs. The loop must then have nothing left to do.
    func finish() {
        for agent in self.agents { agent.stop() }
        self.gateway.stop()
        self.loop.run()
        self.loop.close()
        try? FileManager.default.removeItem(atPath: self.directory)
    }
}

/// A backend whose reserved port refuses connections until `listen`. No other program can get the port.
final class SilentBackend {
    let port: UInt16
    private let descriptor: CInt

    init() throws {
        self.descriptor = socket(AF_INET, CInt(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        try #require(self.descriptor >= 0)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let descriptor = self.descriptor
        let isBound = withUnsafeMutablePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(descriptor, $0, length) == 0 && getsockname(descriptor, $0, &length) == 0
            }
        }
        try #require(isBound)
        self.port = UInt16(bigEndian: address.sin_port)
    }

    deinit { Glibc.close(self.descriptor) }

    /// From now on the kernel accepts connections. They stay in the backlog.
    func listen() { _ = Glibc.listen(self.descriptor, 16) }
}

extension World {
    func visit(_ port: UInt16) throws -> Connection { try #require(Connection.open(self.loop, to: port)) }

    /// Lets the loop handle pending events, so that the peer reads the next write separately.
    func turn() {
        var hasRun = false
        _ = self.loop.run {
            defer { hasRun = true }
            return hasRun
        }
    }
}
