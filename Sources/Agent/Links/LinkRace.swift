internal import Reactor
internal import Relay
internal import Secure

/// Makes one link: tries the gateway's addresses until one of them has presented its key.
///
/// RFC 8305 ends the race when TCP is connected. But a host whose process hangs, and many firewalls, accept the
/// connection and then send nothing. So this race goes on: if an address is silent for a second, the next one is tried
/// as well.
final class LinkRace {
    /// Why no address won.
    enum Failure {
        case unreachable(UVError)
        case unusable(SecurityError)
        /// How the last connected session ended.
        case ended(LinkEnd)
    }

    /// How long after the start TCP connections may be made, at most.
    static let milliseconds: UInt64 = 15_000
    /// How long an address may be silent before the next one is tried too.
    private static let patience: UInt64 = 1_000

    /// Connected sessions that have not presented a key.
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
    ///   - milliseconds: how long TCP connections may be made.
    ///   - begin: creates a session on a connection and starts it.
    ///   - silent: called for each address that has accepted a connection and not answered within ``patience``.
    ///   - failed: called once, unless a session wins or the race is cancelled, and never from inside this call.
    init(
        loop: EventLoop, to endpoint: Endpoint, plan: Connector.Plan, atMost milliseconds: UInt64,
        begin: @escaping (SocketStream) throws(SecurityError) -> GatewaySession,
        silent: @escaping (SocketAddress) -> Void, failed: @escaping (Failure) -> Void
    ) {
        self.loop = loop
        self.endpoint = endpoint
        self.plan = plan
        self.begin = begin
        self.silent = silent
        self.failed = failed
        self.deadline = loop.now + milliseconds
        self.timer = LoopTimer(loop: loop) { [weak self] in self?.patienceEnded() }
        self.next()
    }

    /// Call it when a session has presented its key. Ends the race and returns the other sessions, which the caller
    /// must end.
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

    /// Stops connecting. The caller is responsible for sessions that are already connected.
    func cancel() {
        self.isOver = true
        self.sessions = []
        self.connector?.cancel()
        self.connector = nil
        self.timer?.close()
        self.timer = nil
    }

    private func patienceEnded() {
        // Earlier sessions were reported when their own timer fired.
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

    /// No address is left. If a session had connected, its end is reported, because that explains more.
    private func finish(_ failure: Failure) {
        guard self.sessions.isEmpty else { return }
        let failed = self.failed
        self.cancel()
        failed(self.failure ?? failure)
    }
}
