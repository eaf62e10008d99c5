internal import CUV

/// The target of a ``Connector``.
package enum Endpoint: Hashable, Sendable, CustomStringConvertible {
    case host(String, port: UInt16)
    case unix(path: String)

    package var description: String {
        switch self {
        case .host(let host, let port): host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)"
        case .unix(let path): "unix:\(path)"
        }
    }
}

/// Connects to an endpoint: resolves its name and tries each address in turn. The next attempt starts after 250 ms
/// without an answer, or at once after a failure. The first connection wins (RFC 8305, "Happy Eyeballs").
package final class Connector {
    /// Milliseconds between attempts (RFC 8305, 5: Connection Attempt Delay).
    private static let stagger: UInt64 = 250

    /// Which addresses to try, in which order, and with which socket options.
    package struct Plan {
        /// An address that worked before. Tried first if it is among the resolved addresses.
        package var preferred: SocketAddress?
        /// Addresses to try last.
        package var avoided: Set<SocketAddress> = []
        /// Addresses to skip.
        package var excluded: Set<SocketAddress> = []
        /// Maximum segment size in bytes for both directions, TCP options included; nil for the interface's default.
        package var largestSegment: Int?
        /// Whether to reset established connections that are cancelled. A peer could mistake an orderly end for a
        /// complete, empty request.
        package var resetsAbandoned = false

        package init() {}
    }

    private let loop: EventLoop
    private let plan: Plan
    private var lookup: NameLookup?
    private var waiting: [SocketAddress] = []
    private var attempts: [ConnectAttempt] = []
    private var staggerTimer: LoopTimer?
    private var deadlineTimer: LoopTimer?
    private var lastError = UVError.timedOut
    private var completion: ((Result<SocketStream, UVError>) -> Void)?

    /// Starts connecting. `completion` is called once, never from inside this call, and receives ownership of the
    /// stream. Keep a reference to the connector until then.
    ///
    /// - Parameters:
    ///   - timeout: milliseconds for the name resolution and all attempts together.
    package static func connect(
        loop: EventLoop, to endpoint: Endpoint, plan: Plan = Plan(), timeout: UInt64,
        completion: @escaping (Result<SocketStream, UVError>) -> Void
    ) -> Connector {
        let connector = Connector(loop: loop, plan: plan, completion: completion)
        let timer = LoopTimer(loop: loop) { [weak connector] in connector?.finish(.failure(.timedOut)) }
        connector.deadlineTimer = timer
        timer.start(after: timeout)
        connector.start(endpoint)
        return connector
    }

    private init(
        loop: EventLoop, plan: Plan, completion: @escaping (Result<SocketStream, UVError>) -> Void
    ) {
        self.loop = loop
        self.plan = plan
        self.completion = completion
    }

    /// Stops connecting. The completion will not be called.
    package func cancel() {
        self.completion = nil
        self.tearDown()
    }

    private func start(_ endpoint: Endpoint) {
        switch endpoint {
        case .unix(let path): self.attempt(.unix(path: path))
        case .host("localhost", let port):
            // RFC 6761, 6.3: localhost always resolves to the loopback addresses, without a query.
            self.resolved([.loopback6(port: port), .loopback4(port: port)])
        case .host(let host, let port):
            if let address = SocketAddress(host, port: port) { return self.resolved([address]) }
            self.lookup = self.loop.names.lookUp(host) { result in
                self.lookup = nil
                switch result {
                case .success(let addresses):
                    self.resolved(
                        addresses.map {
                            var address = $0
                            address.port = port
                            return address
                        })
                case .failure(let error): self.finish(.failure(error))
                }
            }
        }
    }

    private func resolved(_ addresses: [SocketAddress]) {
        let wanted = addresses.filter { !self.plan.excluded.contains($0) }
        self.waiting =
            wanted.filter { !self.plan.avoided.contains($0) } + wanted.filter { self.plan.avoided.contains($0) }
        if let preferred = self.plan.preferred, let index = self.waiting.firstIndex(of: preferred) {
            self.waiting.remove(at: index)
            self.waiting.insert(preferred, at: 0)
        }
        self.next()
    }

    private func next() {
        guard self.completion != nil else { return }
        guard !self.waiting.isEmpty else {
            if self.attempts.isEmpty { self.finishLater(self.lastError) }
            return
        }
        self.attempt(.tcp(self.waiting.removeFirst()))
        guard !self.waiting.isEmpty else { return }
        let timer = self.staggerTimer ?? LoopTimer(loop: self.loop) { [weak self] in self?.next() }
        self.staggerTimer = timer
        timer.start(after: Self.stagger)
    }

    private func attempt(_ target: ConnectAttempt.Target) {
        do throws(UVError) {
            self.attempts.append(
                try ConnectAttempt(loop: self.loop, target, largestSegment: self.plan.largestSegment) {
                    attempt, result in self.ended(attempt, result)
                })
        } catch {
            self.lastError = error
            switch target {
            case .tcp: self.next()
            case .unix: self.finishLater(error)
            }
        }
    }

    private func ended(_ attempt: ConnectAttempt, _ result: Result<SocketStream, UVError>) {
        self.attempts.removeAll { $0 === attempt }
        switch result {
        case .success: self.finish(result)
        case .failure(let error):
            self.lastError = error
            if self.waiting.isEmpty, self.attempts.isEmpty { self.finish(.failure(error)) } else { self.next() }
        }
    }

    /// Fails in a later turn, because the completion must not be called from inside `connect`.
    private func finishLater(_ error: UVError) {
        self.lastError = error
        let timer = self.staggerTimer ?? LoopTimer(loop: self.loop) {}
        timer.close()
        self.staggerTimer = LoopTimer(loop: self.loop) { [weak self] in self?.finish(.failure(error)) }
        self.staggerTimer?.start(after: 0)
    }

    private func finish(_ result: Result<SocketStream, UVError>) {
        guard let completion = self.completion else {
            if case .success(let stream) = result { self.abandon(stream) }
            return
        }
        self.completion = nil
        self.tearDown()
        completion(result)
    }

    private func abandon(_ stream: SocketStream) {
        if self.plan.resetsAbandoned { stream.reset() } else { stream.close() }
    }

    private func tearDown() {
        self.lookup?.cancel()
        self.lookup = nil
        self.waiting = []
        let attempts = self.attempts
        self.attempts = []
        for attempt in attempts { self.abandon(attempt.cancel()) }
        self.staggerTimer?.close()
        self.staggerTimer = nil
        self.deadlineTimer?.close()
        self.deadlineTimer = nil
    }
}

/// One connect(2) in progress.
private final class ConnectAttempt {
    enum Target {
        case tcp(SocketAddress)
        case unix(path: String)
    }

    private let request: UnsafeMutablePointer<uv_connect_t>
    private let stream: SocketStream
    private var completion: ((ConnectAttempt, Result<SocketStream, UVError>) -> Void)?

    init(
        loop: EventLoop, _ target: Target, largestSegment: Int?,
        completion: @escaping (ConnectAttempt, Result<SocketStream, UVError>) -> Void
    ) throws(UVError) {
        self.completion = completion
        switch target {
        case .tcp(let address):
            self.stream =
                if let largestSegment {
                    try SocketStream.tcp(loop: loop, for: address, largestSegment: largestSegment)
                } else { try SocketStream.tcp(loop: loop) }
        case .unix: self.stream = try SocketStream.unix(loop: loop)
        }
        self.request = .allocate(capacity: 1)
        switch target {
        case .tcp(let address):
            let code = address.withRaw {
                uv_tcp_connect(self.request, cuv_tcp_of_stream(self.stream.raw), cuv_sockaddr($0), onConnected)
            }
            guard code == 0 else {
                self.stream.close()
                self.request.deallocate()
                throw UVError(code: code)
            }
        case .unix(let path):
            uv_pipe_connect(self.request, cuv_pipe_of_stream(self.stream.raw), path, onConnected)
        }
        // Balanced in onConnected, which libuv always calls, even if the stream is closed.
        self.request.pointee.data = Unmanaged.passRetained(self).toOpaque()
    }

    /// Drops the completion.
    ///
    /// - Returns: the socket, possibly connected. The caller must close it.
    func cancel() -> SocketStream {
        self.completion = nil
        return self.stream
    }

    func connected(_ status: CInt) {
        self.request.deallocate()
        let completion = self.completion
        self.completion = nil
        guard let completion else { return }
        if status == 0 {
            completion(self, .success(self.stream))
        } else {
            self.stream.close()
            completion(self, .failure(UVError(code: status)))
        }
    }
}

private let onConnected: uv_connect_cb = { request, status in
    guard let data = request?.pointee.data else { return }
    Unmanaged<ConnectAttempt>.fromOpaque(data).takeRetainedValue().connected(status)
}
