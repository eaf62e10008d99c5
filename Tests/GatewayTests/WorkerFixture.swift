import GatewayCore
import Journal
import Reactor
import Relay
import Secure
import Settings
import TestSupport
import Testing
import Timing
import Tunnel
import Wire

@testable import Gateway

/// A worker whose hub is the test. It collects the reports, and the test gives the orders.
final class WorkerFixture: SocketListenerDelegate {
    let loop: EventLoop
    let log = LogLines()
    let buffers = RelayBuffers()
    private(set) var reports: [WorkerReport] = []
    private(set) var worker: Worker!
    /// The agent port.
    private let listener: SocketListener
    private var accepted: [SocketStream] = []
    private var lastLink: LinkID = 0
    private var lastName: UInt64 = 0
    private var listeners: [ListenerSocket] = []

    init(proxies: [Network] = []) throws {
        self.loop = try EventLoop()
        self.listener = try SocketListener(loop: self.loop, address: .loopback4(port: 0))
        self.listener.delegate = self
        let settings = WorkerSettings(
            linkLimits: LinkLimits(), visitorLimits: VisitorLimits(),
            sources: SourceRules(trusted: [], proxies: proxies), socketsAreProxied: false, logsStreams: false,
            maxRefused: 4, software: "test/1")
        self.worker = Worker(
            loop: self.loop, settings: settings, budget: ByteBudget(limit: 64 << 20),
            log: PeerLog(self.log.logger, loop: self.loop)
        ) { [unowned self] in self.reports.append($0) }
        self.worker.perform(.identify(try Identity.selfSigned(commonName: "test").pem))
    }

    func listener(_ listener: SocketListener, didAccept stream: SocketStream) { self.accepted.append(stream) }
    func listener(_ listener: SocketListener, didFail error: UVError) {}

    /// Waits for a report, unless it has already arrived.
    func wait(for isIt: (WorkerReport) -> Bool) {
        #expect(self.loop.run { self.reports.contains(where: isIt) })
    }

    /// The first result of `match` among the reports. Waits for a matching report if necessary.
    func first<T>(_ match: (WorkerReport) -> T?) throws -> T {
        #expect(self.loop.run { self.reports.contains { match($0) != nil } })
        return try #require(self.reports.lazy.compactMap(match).first)
    }

    /// An agent whose connection the worker has taken, and its link.
    func connect() throws -> (FakeAgent, LinkID) {
        var socket: SocketStream?
        let connector = Connector.connect(
            loop: self.loop, to: .host("127.0.0.1", port: self.listener.port), timeout: 5_000
        ) { socket = try? $0.get() }
        #expect(self.loop.run { socket != nil && !self.accepted.isEmpty })
        _ = connector
        let peer = try #require(self.accepted[0].peerAddress)
        self.lastLink += 1
        let given = try self.accepted.removeFirst().giveAway()
        self.worker.perform(.take(NewLink(id: self.lastLink, socket: given, peer: peer, isVersion1: false)))
        return (try FakeAgent(try #require(socket), self.buffers), self.lastLink)
    }

    /// An agent that has logged in, and its link.
    func logIn(_ identity: String, allowance: LinkAllowance? = nil) throws -> (FakeAgent, LinkID) {
        let (agent, id) = try self.connect()
        self.wait { if case .greeted(id) = $0 { true } else { false } }
        self.worker.perform(.shakeHands(id, after: 0))
        self.wait { if case .login(id, _) = $0 { true } else { false } }
        self.worker.perform(
            .welcome(
                id, AgentIdentity(id: identity),
                allowance ?? LinkAllowance(streams: 16, names: 16, agentStreams: nil),
                Welcome(linkID: id, maximumNames: 16)))
        #expect(self.loop.run { agent.isWelcome })
        return (agent, id)
    }

    /// Publishes a name under the exposure number of an agent's request. Returns the name's ID and port.
    func open(_ name: String, _ identity: String, at link: LinkID, number: UInt16) throws -> (ExposureID, UInt16) {
        self.lastName += 1
        let id = ExposureID(number: self.lastName)
        let socket = try ListenerSocket(address: .loopback4(port: 0))
        self.listeners.append(socket)
        let opened = OpenedName(
            id: id, name: try #require(Name(name)), identity: AgentIdentity(id: identity), sockets: [socket])
        self.worker.perform(.open(opened))
        self.worker.perform(.attach(id, link, number: number))
        self.worker.perform(.publish(id))
        return (id, try #require(socket.address).port)
    }

    /// Shuts the listener down and then withdraws the name, as the hub does.
    func withdraw(_ id: ExposureID) {
        self.listeners[Int(id.number) - 1].shutDown()
        self.worker.perform(.withdraw(id))
    }

    func visit(_ port: UInt16) throws -> Connection { try #require(Connection.open(self.loop, to: port)) }

    func census() throws -> WorkerCensus {
        let number = UInt64(self.reports.count) + 1_000
        self.worker.perform(.ask(number, .census(withStreams: true)))
        return try self.first { if case .answer(number, .census(let census)) = $0 { census } else { nil } }
    }

    func hasEnded(_ id: LinkID) -> Bool {
        self.reports.contains { if case .emptied(id) = $0 { true } else { false } }
    }

    /// Ends everything. The loop must then have nothing left to do.
    func finish(_ agents: FakeAgent...) {
        for number in 0..<self.lastName { self.withdraw(ExposureID(number: number + 1)) }
        self.worker.perform(.cutAll)
        for agent in agents { agent.link.close(.ended(.none, "")) }
        for stream in self.accepted { stream.close() }
        self.listener.close()
        self.worker.perform(.shutDown)
        let last = self.lastLink
        #expect(self.loop.run { (0..<last).allSatisfy { self.hasEnded($0 + 1) } })
        self.loop.close()
    }
}

/// The agent's end of a link. It logs in, and connects its streams to a backend.
final class FakeAgent: LinkSessionDelegate {
    let link: LinkSession
    var backend: UInt16 = 0
    private(set) var isWelcome = false
    private(set) var answers: [Registered] = []
    private(set) var opened: [Open] = []
    private(set) var end: LinkEnd?
    private var connectors: [Connector] = []

    init(_ socket: SocketStream, _ buffers: RelayBuffers) throws {
        let context = try TLSContext.client(
            identity: nil, trustsSystemRoots: false, applicationProtocol: WireConstant.applicationProtocol)
        let transport = try LinkTransport(
            socket: socket, version: .version2(context, serverName: nil), role: .agent, handshakeDeadline: 10_000,
            budget: nil, buffers: buffers)
        self.link = LinkSession(transport: transport, limits: LinkLimits(), budget: nil, software: "agent/1")
        self.link.delegate = self
        self.link.start()
    }

    func link(_ link: LinkSession, didSecure peer: ChannelPeer) -> PeerVerdict {
        .proceed(Login(method: .instance, instanceKey: [UInt8](repeating: 7, count: 32), run: 1, token: ""))
    }

    func link(_ link: LinkSession, did event: LinkEvent) {
        switch event {
        case .welcomed: self.isWelcome = true
        case .registered(let answer): self.answers.append(answer)
        case .opened(let key, let open):
            self.opened.append(open)
            let connector = Connector.connect(
                loop: link.loop, to: .host("127.0.0.1", port: self.backend), timeout: 5_000
            ) { result in
                switch result {
                case .success(let socket): link.accept(key, backend: socket)
                case .failure: link.abort(key, .refused)
                }
            }
            self.connectors.append(connector)
        case .greeted, .resume, .resumed, .needMore, .login, .register, .unregister, .ready, .accepted, .data, .reset,
            .goAway, .violation:
            break
        }
    }

    func link(_ link: LinkSession, streamEnded edge: Edge, _ end: StreamEnd) {}
    func linkDidDetach(_ link: LinkSession, _ end: LinkEnd) {}
    func linkIsEnding(_ link: LinkSession) {}
    func linkDidEnd(_ link: LinkSession, _ end: LinkEnd) { self.end = end }
    func linkDidEmpty(_ link: LinkSession) {}
}
