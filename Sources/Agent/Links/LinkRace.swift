internal import Reactor
internal import Relay
internal import Secure

/// Makes one link: tries the gateway's addresses until one of them has shown its key.
///
/// RFC 8305 ends when TCP is up. A host whose process hangs, and many a firewall, go that far and then say nothing: the
/// race therefore goes on, and an address that has been silent for a second has the next one beside it.
final class LinkRace {
    /// Why no address won.
    enum Failure {
        case unreachable(UVError)
        case unusable(SecurityError)
        /// What the last one said that connected.
        case ended(LinkEnd)
    }

    /// From the start to the last TCP connection.
    private static let milliseconds: UInt64 = 15_000
    /// How long an address may be silent before the next one is tried.
    private static let patience: UInt64 = 1_000

    /// Those that are connected and have not shown a key.
    private(set) var sessions: [GatewaySession] = []
    private let loop: EventLoop
    private let endpoint: Endpoint
    private var plan: Connector.Plan
    private let deadline: UInt64
    private let begin: (SocketStream) throws(SecurityError) -> GatewaySession
    private let silent: (SocketAddress) -> Void
    private let failed: (Failure) -> Void
    private var connector: Connector?
    private var timer: LoopTimer?
    private var failure: Failure?
    private var isOver = false

    /// - Parameters:
    ///   - begin: makes a session of a connection and starts it.
    ///   - silent: called for each address that has accepted a connection and not answered within ``patience``.
    ///   - failed: called once, unless a session wins or the race is cancelled, and never from inside this call.
    init(
        loop: EventLoop, to endpoint: Endpoint, plan: Connector.Plan,
        begin: @escaping (SocketStream) throws(SecurityError) -> GatewaySession,
        silent: @escaping (SocketAddress) -> Void, failed: @escaping (Failure) -> Void
    ) {
        self.loop = loop
        self.endpoint = endpoint
        self.plan = plan
        self.begin = begin
        self.silent = silent
        self.failed = failed
        self.deadline = loop.now + Self.milliseconds
        self.timer = LoopTimer(loop: loop) { [weak self] in self?.patienceEnded() }
        self.next()
    }

    /// The session has shown its key: the others are returned, for the caller to end.
    func won(_ session: GatewaySession) -> [GatewaySession] {
        let others = self.sessions.filter { $0 !== session }
        self.cancel()
        return others
    }

    func ended(_ session: GatewaySession, _ end: LinkEnd) {
        self.sessions.removeAll { $0 === session }
        self.failure = .ended(end)
        self.next()
    }

    /// Connects to nothing more. What is connected stays with the caller.
    func cancel() {
        self.isOver = true
        self.sessions = []
        self.connector?.cancel()
        self.connector = nil
        self.timer?.close()
        self.timer = nil
    }

    private func patienceEnded() {
        // Earlier ones were reported by their own timer.
        if let address = self.sessions.last?.address { self.silent(address) }
        self.next()
    }

    private func next() {
        guard !self.isOver, self.connector == nil else { return }
        guard self.loop.now < self.deadline else { return self.finish(.unreachable(.timedOut)) }
        self.connector = Connector.connect(
            loop: self.loop, to: self.endpoint, plan: self.plan, timeout: self.deadline - self.loop.now
        ) { [weak self] result in
            guard let self else { return }
            self.connector = nil
            switch result {
            case .failure(let error): self.finish(.unreachable(error))
            case .success(let socket): self.connected(socket)
            }
        }
    }

    private func connected(_ socket: SocketStream) {
        if let address = socket.peerAddress { self.plan.excluded.insert(address) }
        do throws(SecurityError) { self.sessions.append(try self.begin(socket)) } catch {
            socket.close()
            return self.finish(.unusable(error))
        }
        self.timer?.start(after: Self.patience)
    }

    /// There is no further address. What was said first by one that connected explains more than that.
    private func finish(_ failure: Failure) {
        guard self.sessions.isEmpty else { return }
        let failed = self.failed
        self.cancel()
        failed(self.failure ?? failure)
    }
}
