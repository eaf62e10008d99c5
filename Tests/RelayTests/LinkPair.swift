import Reactor
import Relay
import Secure
import TestSupport
import Testing
import Tunnel
import Wire

/// Both ends of a link in one program, with a wire between them. Visitors connect at the gateway's end, the backend
/// is at the agent's.
final class LinkPair {
    let loop: EventLoop
    let gateway: TestLink
    let agent: TestLink
    let wire: SeededWire
    private let agentPort: SocketListener
    private let visitorPort: SocketListener
    let backend: AnsweringBackend
    private let accepted: Accepted
    private(set) var visits: [Visit] = []
    let progress: Progress

    /// The progress of the agent's end.
    final class Progress {
        /// Whether its name is registered.
        var isReady = false
        var openedCount = 0
        /// Connections to the backend in progress.
        var connectors: [StreamKey: Connector] = [:]
    }

    private static let identity = Result { () throws(SecurityError) in try Identity.selfSigned(commonName: "test").pem }

    /// Keeps the sockets that a listener accepts.
    private final class Accepted: SocketListenerDelegate {
        var streams: [SocketStream] = []
        func listener(_ listener: SocketListener, didAccept stream: SocketStream) { self.streams.append(stream) }
        func listener(_ listener: SocketListener, didFail error: UVError) {}
    }

    init(seed: UInt64, cut: (bytes: Int, how: SeededWire.Break)? = nil) throws {
        self.loop = try EventLoop()
        self.accepted = Accepted()
        self.agentPort = try SocketListener(loop: self.loop, address: .loopback4(port: 0))
        self.agentPort.delegate = self.accepted
        self.visitorPort = try SocketListener(loop: self.loop, address: .loopback4(port: 0))
        self.backend = try AnsweringBackend(loop: self.loop)
        self.wire = try SeededWire(loop: self.loop, to: self.agentPort.port, seed: seed, cut: cut)
        var dialled: SocketStream?
        let connector = Connector.connect(
            loop: self.loop, to: .host("127.0.0.1", port: self.wire.port), timeout: 5_000
        ) { dialled = try? $0.get() }
        let accepted = self.accepted
        #expect(self.loop.run { dialled != nil && !accepted.streams.isEmpty })
        connector.cancel()
        let buffers = RelayBuffers()
        let protocolName = WireConstant.applicationProtocol
        let server = try TLSContext.server(
            identity: try Identity.load(Self.identity.get()), applicationProtocol: protocolName)
        let client = try TLSContext.client(identity: nil, trustsSystemRoots: false, applicationProtocol: protocolName)
        let progress = Progress()
        self.progress = progress
        self.gateway = try TestLink(
            accepted.streams.removeFirst(), .version2(server, serverName: nil), .gateway, buffers
        ) { link, event in
            switch event {
            case .login: link.acceptLogin(Welcome(linkID: 1, maximumNames: 16))
            case .register(let request):
                link.answer(Registered(exposure: request.exposure, code: .none, port: 1, text: ""))
            default: break
            }
        }
        let backend = self.backend.listener.port
        self.agent = try TestLink(
            try #require(dialled), .version2(client, serverName: nil), .agent, buffers, login: .ofTest
        ) { link, event in
            switch event {
            case .welcomed: link.register([Register(exposure: 0, port: 0, name: "example")])
            case .registered: progress.isReady = true
            case .opened(let key, _):
                progress.openedCount += 1
                var plan = Connector.Plan()
                plan.resetsAbandoned = true
                progress.connectors[key] = Connector.connect(
                    loop: link.loop, to: .host("127.0.0.1", port: backend), plan: plan, timeout: 5_000
                ) {
                    progress.connectors[key] = nil
                    switch $0 {
                    case .success(let socket): link.accept(key, backend: socket)
                    case .failure: link.abort(key, .refused)
                    }
                }
            default: break
            }
        }
        // An agent also cancels the connector when the stream ends.
        self.agent.streamEnded = { progress.connectors.removeValue(forKey: $0.key)?.cancel() }
        self.visitorPort.delegate = accepted
    }

    /// Connects a visitor that sends `request`. The backend then answers `answer`. If the link takes no more streams,
    /// the visitor is dropped.
    func visit(request: [UInt8], answer: [UInt8]) throws {
        let visitor = try #require(Connection.open(self.loop, to: self.visitorPort.port))
        let accepted = self.accepted
        #expect(self.loop.run { !accepted.streams.isEmpty })
        let stream = accepted.streams.removeFirst()
        guard self.gateway.link.open(exposure: 0, visitor: .none, local: .none, socket: stream) != nil else {
            stream.reset()
            return visitor.stream.close()
        }
        let request = [UInt8(self.visits.count)] + request
        self.backend.answers.append(answer)
        self.visits.append(Visit(visitor: visitor, request: request, answer: answer))
        _ = request.withUnsafeBytes { visitor.stream.write($0) }
        visitor.stream.shutdownWriting()
    }

    var areVisitsOver: Bool {
        self.visits.allSatisfy(\.isOver) && self.gateway.ends.count == self.visits.count
            && self.agent.ends.count == self.progress.openedCount
    }

    /// Waits until the backend has accepted every connection, and each of them has ended.
    func settle() throws {
        let last = try #require(Connection.open(self.loop, to: self.backend.listener.port))
        self.backend.lastPort = try #require(last.stream.localAddress).port
        // Connections are accepted in order.
        #expect(self.loop.run { self.backend.hasAcceptedLast })
        last.stream.close()
        #expect(self.loop.run { self.progress.connectors.isEmpty && self.backend.isSettled })
    }

    /// Ends everything. The loop must then have nothing left to do.
    func finish() {
        self.gateway.link.close(.ended(.none, "the test ends"))
        self.agent.link.close(.ended(.none, "the test ends"))
        self.wire.close()
        for visit in self.visits { visit.visitor.stream.close() }
        for stream in self.accepted.streams { stream.close() }
        self.backend.close()
        for listener in [self.agentPort, self.visitorPort] { listener.close() }
        #expect(self.loop.run { self.gateway.isEmpty && self.agent.isEmpty })
        self.loop.close()
    }
}

/// A visitor, its request and the answer it must get. A request begins with the number of the visit.
struct Visit {
    let visitor: Connection
    let request: [UInt8]
    let answer: [UInt8]

    /// Whether the answer is neither truncated nor changed, as far as the visitor can tell.
    var isSound: Bool {
        let received = self.visitor.received
        guard received.count <= self.answer.count, received == Array(self.answer.prefix(received.count)) else {
            return false
        }
        return !self.visitor.hasEnded || received.count == self.answer.count
    }

    var isOver: Bool { self.visitor.hasEnded || self.visitor.error != nil }
}

/// Reads each request to its end, then sends the answer of its visit.
final class AnsweringBackend: SocketListenerDelegate, SocketStreamDelegate {
    let listener: SocketListener
    /// The answers, by the number of the visit.
    var answers: [[UInt8]] = []
    private var streams: [ObjectIdentifier: SocketStream] = [:]
    private var ports: Set<UInt16> = []
    /// Whether every request has ended or was reset.
    var isSettled: Bool { self.requests.isEmpty }
    private var requests: [ObjectIdentifier: [UInt8]] = [:]
    /// Requests that ended in order.
    private(set) var whole: [[UInt8]] = []
    /// What arrived of the requests that were reset.
    private(set) var cut: [[UInt8]] = []

    init(loop: EventLoop) throws {
        self.listener = try SocketListener(loop: loop, address: .loopback4(port: 0))
        self.listener.delegate = self
    }

    /// The local port of a connection made after those of all visitors.
    var lastPort: UInt16?
    var hasAcceptedLast: Bool { self.lastPort.map { self.ports.contains($0) } ?? false }

    func listener(_ listener: SocketListener, didAccept stream: SocketStream) {
        if let port = stream.peerAddress?.port { self.ports.insert(port) }
        self.streams[ObjectIdentifier(stream)] = stream
        self.requests[ObjectIdentifier(stream)] = []
        stream.delegate = self
        stream.startReading()
    }

    func listener(_ listener: SocketListener, didFail error: UVError) {}
    func readAllowance(_ stream: SocketStream) -> Int { .max }

    func socketStream(_ stream: SocketStream, didRead bytes: UnsafeRawBufferPointer) {
        self.requests[ObjectIdentifier(stream)]? += Array(bytes)
    }

    func socketStreamDidReachEnd(_ stream: SocketStream) {
        guard let request = self.requests.removeValue(forKey: ObjectIdentifier(stream)) else { return }
        guard stream.peerAddress?.port != self.lastPort else { return stream.close() }
        self.whole.append(request)
        guard let number = request.first else { return stream.reset() }
        _ = self.answers[Int(number)].withUnsafeBytes { stream.write($0) }
        stream.shutdownWriting()
    }

    func socketStream(_ stream: SocketStream, didWrite count: Int) {}

    func socketStream(_ stream: SocketStream, didFail error: UVError) {
        if let request = self.requests.removeValue(forKey: ObjectIdentifier(stream)) { self.cut.append(request) }
        stream.close()
    }

    func socketStreamDidClose(_ stream: SocketStream) { self.streams[ObjectIdentifier(stream)] = nil }

    func close() {
        for stream in self.streams.values { stream.close() }
        self.listener.close()
    }
}
