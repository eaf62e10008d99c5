import Reactor
import Secure
import TestSupport
import Testing
import Tunnel
import Wire

@testable import Relay

/// A gateway whose answers are set by the test.
final class FakeGateway: SocketListenerDelegate {
    let listener: SocketListener
    /// All links in the order in which agents made them.
    private(set) var links: [TestLink] = []
    private(set) var logins: [Login] = []
    private(set) var requests: [(link: Int, register: Register)] = []
    private(set) var withdrawn: [UInt16] = []
    /// The code with which logins are refused; nil to accept them.
    var refusal: ErrorCode?
    /// What happens to a RESUME.
    enum Resumption { case accept, refuse, close }
    /// Whether links can be resumed, and how RESUMEs are answered.
    var resumes = false
    var offersResumption = true
    var resumption = Resumption.accept
    /// The RESUMEs with a valid proof, and the connections on which they came.
    private(set) var resumed: [(resume: Resume, link: Int)] = []
    /// The answer to a REGISTER.
    var answer: (Register) -> Registered = { request in
        Registered(exposure: request.exposure, code: .none, port: 4_000 + request.exposure, text: "gw.test:4000")
    }
    /// The identity for new links.
    var identity: IdentityPEM
    private let buffers = RelayBuffers()
    private let loop: EventLoop
    private let visitors: SocketListener
    private var arrived: [SocketStream] = []

    init(loop: EventLoop) throws {
        self.loop = loop
        self.identity = try Identity.selfSigned(commonName: "test").pem
        self.listener = try SocketListener(loop: loop, address: .loopback4(port: 0))
        self.visitors = try SocketListener(loop: loop, address: .loopback4(port: 0))
        self.listener.delegate = self
        self.visitors.delegate = self
    }

    func listener(_ listener: SocketListener, didAccept stream: SocketStream) {
        guard listener === self.listener else { return self.arrived.append(stream) }
        let number = self.links.count
        do {
            let context = try TLSContext.server(
                identity: try Identity.load(self.identity), applicationProtocol: WireConstant.applicationProtocol)
            let link = try TestLink(
                stream, .version2(context, serverName: nil), .gateway, self.buffers,
                offersResumption: self.offersResumption
            ) { [unowned self] link, event in self.react(link, event, number) }
            self.links.append(link)
        } catch { Issue.record("\(error)") }
    }

    func listener(_ listener: SocketListener, didFail error: UVError) {}

    private func react(_ link: LinkSession, _ event: LinkEvent, _ number: Int) {
        switch event {
        case .login(.version2(let login)):
            self.logins.append(login)
            if let refusal = self.refusal { return link.end(refusal, text: "the test refuses") }
            let key = SessionKey(id: [UInt8](repeating: UInt8(number), count: 16), secret: SecureRandom.bytes(32))
            link.acceptLogin(
                Welcome(linkID: UInt64(number) + 1, maximumNames: 16, session: self.resumes ? key : nil))
        case .resume(let resume):
            let former = self.links.first { $0.link.sessionKey?.id == resume.sessionID && $0.link.canResume }
            guard let former = former?.link, former.isProven(resume, on: link) else { return link.refuse(resume) }
            self.resumed.append((resume, number))
            switch self.resumption {
            case .accept: #expect(former.resume(resume, on: link) == .resumed)
            case .refuse: link.refuse(resume)
            case .close: link.transport.close(.closedByPeer)
            }
        case .register(let request):
            self.requests.append((number, request))
            link.answer(self.answer(request))
        case .unregister(let exposure): self.withdrawn.append(exposure)
        default: break
        }
    }

    /// The names requested on a link, in order.
    func names(of link: Int) -> [String] { self.requests.filter { $0.link == link }.map(\.register.name) }

    /// Opens a stream for a visitor of a name, by the exposure number of the link's latest request for it.
    func visit(_ name: String, at link: Int) throws -> Connection {
        let exposure = try #require(self.requests.last { $0.link == link && $0.register.name == name }).register
            .exposure
        let visitor = try #require(Connection.open(self.loop, to: self.visitors.port))
        #expect(self.loop.run { !self.arrived.isEmpty })
        let socket = self.arrived.removeFirst()
        let edge = self.links[link].link.open(exposure: exposure, visitor: .none, local: .none, socket: socket)
        _ = try #require(edge)
        return visitor
    }

    /// Breaks the connection of a link without a word.
    func breakConnection(of link: Int) { self.links[link].link.transport.close(.failed(.connectionReset)) }

    /// Accepts no more links from agents.
    func leave() { self.listener.close() }

    func close() {
        for link in self.links { link.link.close(.ended(.none, "the test ends")) }
        for stream in self.arrived { stream.close() }
        self.listener.close()
        self.visitors.close()
    }
}
