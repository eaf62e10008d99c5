internal import ProxyProtocol
internal import Reactor
internal import Timing

/// Connections from trusted proxies that are not streams of an exposure yet. They wait for their PROXY header, and then
/// for room if the agent has not accepted earlier streams yet.
///
/// They belong to the exposure, not to its link: they stay when it moves to another link, and are reset when it closes.
/// Each counts in the ``VisitorTable`` from the start.
final class ProxyEntrance {
    /// Proxies send the header at once (proxy-protocol.txt, section 2); a peer that takes longer is not a proxy.
    static let headerMilliseconds: Milliseconds = 5_000
    /// As long as an agent may take to accept a stream: by then there is room, or the agent is gone.
    static let roomMilliseconds: Milliseconds = 10_000

    private unowned let exposure: Exposure
    private unowned let worker: Worker
    /// Connections that await their header.
    private var silent: [ObjectIdentifier: ProxyConnection] = [:]
    /// Connections that wait for room, in the order of their headers.
    private var ready: [ProxyConnection] = []

    init(exposure: Exposure, worker: Worker) {
        self.exposure = exposure
        self.worker = worker
    }

    /// A trusted proxy connected.
    func arrived(_ stream: SocketStream, from proxy: Origin) {
        if let refusal = self.worker.visitors.refusalOfUnnamed() {
            self.worker.metrics.visitor(.refused(refusal))
            self.exposure.log("visitor \(proxy) of '\(self.exposure.name)' refused: \(refusal)", nil, proxy: proxy)
            return stream.reset()
        }
        let connection = ProxyConnection(stream, from: proxy, entrance: self, budget: self.worker.budget)
        self.silent[ObjectIdentifier(connection)] = connection
        connection.start(deadline: self.worker.loop.now + Self.headerMilliseconds)
    }

    /// Opens streams for waiting connections, as far as there is room.
    func letIn() {
        while let next = self.ready.first, let link = self.exposure.link, self.exposure.hasRoom {
            guard !(next.visitor?.isBanned(self.worker.bans) ?? false) else {
                self.worker.metrics.visitor(.banned)
                self.remove(next)
                continue
            }
            if case .soon = link.room() { return }
            self.ready.removeFirst()
            guard let (visitor, first) = next.handOver() else { continue }
            first.withUnsafeBytes { link.letIn(visitor, next.stream, first: $0, at: self.exposure) }
        }
    }

    /// Fails connections whose deadline has passed.
    func tick() {
        let now = self.worker.loop.now
        for connection in Array(self.silent.values) where now >= connection.deadline {
            self.failed(connection, "no PROXY header within \(Self.headerMilliseconds / 1_000) s", .headerLate)
        }
        for connection in self.ready where now >= connection.deadline {
            self.failed(connection, "the agent accepts no more streams", .agentFull)
        }
    }

    /// Resets all waiting connections.
    func close() {
        for connection in Array(self.silent.values) + self.ready {
            self.worker.metrics.visitor(.withdrawn)
            self.remove(connection)
        }
    }

    // MARK: - From the connections

    /// - Parameter rest: the bytes after the header in the same read; valid during the call.
    func headerArrived(_ connection: ProxyConnection, _ header: ProxyHeader, rest: UnsafeRawBufferPointer) {
        self.silent[ObjectIdentifier(connection)] = nil
        let stream = connection.stream
        let visitor = Visitor(
            header, proxy: connection.proxy, local: stream.localAddress, self.worker.settings.sources)
        if visitor.isBanned(self.worker.bans) {
            self.worker.metrics.visitor(.banned)
            self.worker.visitors.unnamedLeft()
            return connection.reset()
        }
        if let refusal = self.worker.visitors.refusal(ofNamed: visitor.source, to: self.exposure.identity) {
            self.worker.metrics.visitor(.refused(refusal))
            self.exposure.log("\(visitor) of '\(self.exposure.name)' refused: \(refusal)", visitor)
            return connection.reset()
        }
        if self.ready.isEmpty, let link = self.exposure.link, self.exposure.hasRoom,
            link.room() != .soon
        {
            connection.handedOver()
            link.letIn(visitor, stream, first: rest, at: self.exposure)
        } else {
            connection.park(visitor, rest, deadline: self.worker.loop.now + Self.roomMilliseconds)
            self.ready.append(connection)
        }
        self.exposure.pauseWithoutRoom()
    }

    func failed(_ connection: ProxyConnection, _ reason: String, _ result: VisitorResult) {
        self.worker.metrics.visitor(result)
        let visitor = connection.visitor.map { "\($0)" } ?? "visitor \(connection.proxy)"
        self.exposure.log(
            "\(visitor) of '\(self.exposure.name)' refused: \(reason)", connection.visitor, proxy: connection.proxy)
        self.remove(connection)
    }

    private func remove(_ connection: ProxyConnection) {
        if let visitor = connection.visitor {
            self.ready.removeAll { $0 === connection }
            self.worker.visitors.left(visitor.source, to: self.exposure.identity)
        } else {
            self.silent[ObjectIdentifier(connection)] = nil
            self.worker.visitors.unnamedLeft()
        }
        connection.reset()
    }
}
