import Reactor
import Secure
import TestSupport
import Testing
import Tunnel
import Wire

@testable import Relay

/// A session between two links in one program, and connections on which it may continue.
private final class SessionStand: SocketListenerDelegate {
    let loop: EventLoop
    private let listener: SocketListener
    private let buffers = RelayBuffers()
    private let server: TLSContext
    private let client: TLSContext
    private var accepted: [SocketStream] = []
    private(set) var gateways: [TestLink] = []
    private(set) var agents: [TestLink] = []
    /// What the gateway does when RESUME arrives on a connection.
    var resume: (LinkSession, Resume) -> Void = { _, _ in }
    private(set) var answers: [Resumed] = []

    init() throws {
        self.loop = try EventLoop()
        self.listener = try SocketListener(loop: self.loop, address: .loopback4(port: 0))
        let name = WireConstant.applicationProtocol
        self.server = try TLSContext.server(
            identity: try Identity.load(try Identity.selfSigned(commonName: "test").pem), applicationProtocol: name)
        self.client = try TLSContext.client(identity: nil, trustsSystemRoots: false, applicationProtocol: name)
        self.listener.delegate = self
    }

    func listener(_ listener: SocketListener, didAccept stream: SocketStream) { self.accepted.append(stream) }
    func listener(_ listener: SocketListener, didFail error: UVError) {}

    var session: (gateway: LinkSession, agent: LinkSession) { (self.gateways[0].link, self.agents[0].link) }

    /// Makes a connection. The first one logs in and begins the session.
    func connect() throws {
        let isFirst = self.agents.isEmpty
        var dialled: SocketStream?
        let connector = Connector.connect(
            loop: self.loop, to: .host("127.0.0.1", port: self.listener.port), timeout: 5_000
        ) { dialled = try? $0.get() }
        #expect(self.loop.run { dialled != nil && !self.accepted.isEmpty })
        connector.cancel()
        var isReady = false
        self.gateways.append(
            try TestLink(self.accepted.removeFirst(), .version2(self.server, serverName: nil), .gateway, self.buffers) {
                [unowned self] link, event in
                switch event {
                case .login:
                    let key = SessionKey(id: [UInt8](repeating: 1, count: 16), secret: [UInt8](repeating: 2, count: 32))
                    link.acceptLogin(Welcome(linkID: 1, maximumNames: 1, session: key))
                case .resume(let resume): self.resume(link, resume)
                default: break
                }
            })
        self.agents.append(
            try TestLink(
                try #require(dialled), .version2(self.client, serverName: nil), .agent, self.buffers,
                login: isFirst ? .ofTest : nil
            ) { [unowned self] link, event in
                switch event {
                case .welcomed: isReady = true
                case .greeted: if !isFirst { isReady = true }
                case .resumed(let resumed):
                    self.answers.append(resumed)
                    if resumed.code == .none { self.session.agent.resumed(resumed, on: link) }
                default: break
                }
            })
        #expect(self.loop.run { isReady })
    }

    /// Sends RESUME on the latest connection, and leaves the older one open.
    func askBesideTheOther() throws {
        let (agent, greeter) = (self.session.agent, try #require(self.agents.last).link)
        let key = try #require(agent.sessionKey)
        agent.machine.detach(now: self.loop.now)
        var resume = agent.machine.nextResume()
        let exporter = try #require(
            greeter.transport.exportKey(label: Resume.exporterLabel, count: Resume.exporterSize))
        resume.proof = SHA256.authenticate(resume.proven(exporter: exporter), key: key.secret)
        greeter.machine.request(resume)
        greeter.setNeedsFlush()
    }

    func finish() {
        for link in self.gateways + self.agents { link.link.close(.ended(.none, "the test ends")) }
        self.listener.close()
        self.loop.run()
        self.loop.close()
    }
}

@Suite("A link between two connections", .serialized, .timeLimit(.minutes(1)))
struct ResumptionTests {
    @Test("survives when the socket of the former connection closes after it was resumed")
    func lateClose() throws {
        let stand = try SessionStand()
        try stand.connect()
        try stand.connect()
        let session = stand.session.gateway
        stand.resume = { greeter, resume in
            // The close callback of this socket comes later in the same turn.
            session.transport.close(.failed(.connectionReset))
            #expect(session.detachedSince != nil && session.isProven(resume, on: greeter))
            #expect(session.resume(resume, on: greeter) == .resumed)
        }
        try stand.askBesideTheOther()
        #expect(stand.loop.run { !stand.answers.isEmpty })
        var isAnswered = false
        let timer = LoopTimer(loop: stand.loop) { isAnswered = true }
        timer.start(after: 0)
        #expect(stand.loop.run { isAnswered })
        timer.close()
        #expect(session.isOpen && session.detachedSince == nil && stand.gateways[0].reports.isEmpty)
        #expect(stand.gateways[0].detachCount == 1)
        stand.finish()
        #expect(stand.gateways[0].reports == [.ending, .ended, .emptied])
    }

    @Test("reports its end before it is empty, also if no edge has a socket")
    func endOrder() throws {
        let stand = try SessionStand()
        try stand.connect()
        let session = stand.session.gateway
        _ = try #require(session.open(exposure: 0, visitor: .none, local: .none, socket: nil))
        session.transport.close(.failed(.connectionReset))
        #expect(session.detachedSince != nil && session.streamCount == 1)
        session.close(.ended(.dead, "not resumed"))
        #expect(stand.gateways[0].reports == [.ending, .ended, .emptied])
        #expect(stand.gateways[0].end == .ended(.dead, "not resumed"))
        stand.finish()
    }

    @Test("is not resumed by a connection without its secret")
    func notProven() throws {
        let stand = try SessionStand()
        try stand.connect()
        try stand.connect()
        let session = stand.session.gateway
        var isProven: Bool?
        stand.resume = { [unowned stand] greeter, resume in
            // The proof is for another connection.
            isProven = session.isProven(resume, on: stand.gateways[0].link)
            greeter.refuse(resume)
        }
        try stand.askBesideTheOther()
        #expect(stand.loop.run { !stand.answers.isEmpty })
        #expect(isProven == false && stand.answers.map(\.code) == [.sessionGone])
        #expect(session.isOpen && session.detachedSince == nil)
        stand.finish()
    }
}
