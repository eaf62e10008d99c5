internal import Control
internal import GatewayCore
internal import Journal
internal import Logging
internal import Reactor
internal import Relay
internal import Secure
internal import Settings
internal import Timing
internal import Tunnel
internal import Wire

/// Settings shared by all workers of a gateway.
struct WorkerSettings: Sendable {
    let linkLimits: LinkLimits
    let visitorLimits: VisitorLimits
    let sources: SourceRules
    /// Whether connections through unix sockets begin with a PROXY header.
    let socketsAreProxied: Bool
    /// Whether each stream is logged as a record.
    let logsStreams: Bool
    /// Refused connections kept open to deliver an alert.
    let maxRefused: Int
    /// Sent in HELLO.
    let software: String
}

/// Everything that exists once per event loop: links, the public listeners of their names, and visitors with their
/// streams. The hub sends orders and receives reports; no stream waits for either.
final class Worker {
    let loop: EventLoop
    let settings: WorkerSettings
    /// For every line that an agent or a visitor can cause.
    let log: PeerLog
    let budget: ByteBudget
    let metrics = WorkerMetrics()
    let visitors: VisitorTable
    private(set) var bans = BanList()
    private let send: (WorkerReport) -> Void
    private let buffers = RelayBuffers()
    private let stalled = StalledStreams()
    private let refused: RefusedAgents
    /// Nil until the hub has sent the key and certificate.
    private var context: TLSContext?
    private var links: [LinkID: WorkerLink] = [:]
    /// Links that have ended but still deliver buffered bytes to visitors.
    private var delivering: [LinkID: WorkerLink] = [:]
    /// Links that can be resumed, by the ids of their sessions.
    private var resumable: [[UInt8]: WorkerLink] = [:]
    private var exposures: [ExposureID: Exposure] = [:]
    /// The number of names that each agent has on this worker.
    private var namesByAgent: [AgentIdentity: Int] = [:]
    private var isWatched = false
    private var isDraining = false
    /// As last reported to the hub.
    private var streamCount = 0

    init(
        loop: EventLoop, settings: WorkerSettings, budget: ByteBudget, log: PeerLog,
        send: @escaping (WorkerReport) -> Void
    ) {
        self.loop = loop
        self.settings = settings
        self.log = log
        self.budget = budget
        self.send = send
        self.visitors = VisitorTable(
            loop: loop, limits: settings.visitorLimits, rules: settings.sources,
            socketsAreProxied: settings.socketsAreProxied)
        self.refused = RefusedAgents(atMost: settings.maxRefused)
        self.visitors.room = self
    }

    // MARK: - Orders

    func perform(_ order: WorkerOrder) {
        switch order {
        case .take(let new): self.take(new)
        case .proceed(let id): self.links[id]?.link.transport.proceed()
        case .turnAway(let id, let end, let alert): self.links[id]?.link.transport.turnAway(end, alert)
        case .shakeHands(let id, let wait): self.links[id]?.link.transport.shakeHands(after: wait)
        case .welcome(let id, let identity, let allowance, let welcome):
            self.welcome(id, identity, allowance, welcome)
        case .allow(let id, let allowance): self.links[id]?.allow(allowance)
        case .answer(let id, let answer): self.links[id]?.answer(answer)
        case .end(let id, let refusal, let seconds):
            self.links[id]?.link.end(refusal.code, retryAfterSeconds: seconds, text: refusal.text)
        case .close(let id, let end): self.links[id]?.link.close(end)
        case .retire(let id): self.links[id]?.retire()
        case .cutStreams(let id, let number): self.links[id]?.link.abortStreams(of: number, .revoked)
        case .cutDeliveries(let id): self.delivering[id]?.link.cutDeliveries()
        case .open(let name): self.open(name)
        case .attach(let id, let link, let number):
            if let exposure = self.exposures[id] { self.links[link]?.attach(exposure, number: number) }
        case .probe(let id, let link):
            if let exposure = self.exposures[id] { self.links[link]?.probes.begin(exposure) }
        case .publish(let id): self.exposures[id]?.published()
        case .withdraw(let id): self.withdraw(id)
        case .identify(let pem): self.identify(pem)
        case .ban(let bans): self.bans = bans
        case .watch(let isWatched): self.isWatched = isWatched
        case .tick(let slept): self.tick(slept: slept)
        case .drain:
            self.isDraining = true
            for link in self.links.values {
                link.link.forbidResuming()
                link.drain()
            }
        case .cutAll:
            for link in self.links.values { link.link.close(.ended(.drain, "the gateway is stopping")) }
            for link in self.delivering.values { link.link.cutDeliveries() }
        case .ask(let number, .census(let withStreams)):
            self.send(.answer(number, .census(self.census(withStreams: withStreams))))
        case .ask(let number, .cut(let network)):
            let (links, streams) = self.cut(network)
            self.send(.answer(number, .cut(links: links, streams: streams)))
        case .shutDown: self.refused.close()
        }
    }

    private func welcome(
        _ id: LinkID, _ identity: AgentIdentity, _ allowance: LinkAllowance, _ welcome: Welcome
    ) {
        guard let link = self.links[id] else { return }
        link.welcome(identity, allowance, welcome)
        if self.isDraining { link.link.forbidResuming() }
        if let key = link.link.sessionKey { self.resumable[key.id] = link }
    }

    private func identify(_ pem: IdentityPEM) {
        do throws(SecurityError) {
            self.context = try .server(
                identity: try Identity.load(pem), applicationProtocol: WireConstant.applicationProtocol)
        } catch {
            // Not expected: the hub has checked it.
            self.log.logger.error("cannot use the certificate: \(error)")
        }
    }

    private func take(_ new: NewLink) {
        do throws(UVError) {
            let stream = try SocketStream.take(new.socket, on: self.loop)
            do throws(SecurityError) { try self.begin(new, stream) } catch {
                stream.close()
                self.failed(new, error)
            }
        } catch { self.failed(new, error) }
    }

    private func begin(_ new: NewLink, _ stream: SocketStream) throws(SecurityError) {
        guard let context = self.context else { throw SecurityError("the certificate is not loaded yet") }
        let transport = try LinkTransport(
            socket: stream, version: new.isVersion1 ? .version1 : .version2(context, serverName: nil), role: .gateway,
            handshakeDeadline: self.settings.linkLimits.handshakeDeadline, budget: self.budget, buffers: self.buffers,
            meter: self.metrics.relay)
        let link = LinkSession(
            transport: transport, limits: self.settings.linkLimits, budget: self.budget,
            software: self.settings.software, meter: self.metrics.relay)
        self.links[new.id] = WorkerLink(new, link, worker: self)
        link.start()
    }

    private func failed(_ new: NewLink, _ error: some Error) {
        self.log.write(.error, .strangers, by: AgentLabel(peer: new.peer), "\(new.peer): \(error)")
        self.send(.ended(new.id, .ended(.internalError, "\(error)")))
        self.send(.emptied(new.id))
    }

    private func open(_ name: OpenedName) {
        var listeners: [SocketListener] = []
        // Skip sockets that the hub has shut down; its order to withdraw the name follows.
        for socket in name.sockets where !socket.isShut {
            do throws(UVError) { listeners.append(try SocketListener(loop: self.loop, adopting: socket)) } catch {
                self.log.write(
                    .error, .detail, of: .agent(name.identity.id),
                    "'\(name.name)' cannot listen on \(socket.place): \(error)", .about([.name: name.name]))
                self.send(.notOpened(name.id))
            }
        }
        self.exposures[name.id] = Exposure(name, listeners, worker: self)
        self.namesByAgent[name.identity, default: 0] += 1
    }

    private func withdraw(_ id: ExposureID) {
        guard let exposure = self.exposures.removeValue(forKey: id) else { return }
        let left = self.namesByAgent[exposure.identity, default: 1] - 1
        self.namesByAgent[exposure.identity] = left > 0 ? left : nil
        exposure.close()
    }

    // MARK: - Time

    private func tick(slept: Bool) {
        for link in self.links.values {
            if slept { link.link.clockJumped() }
            link.tick(isDraining: self.isDraining)
        }
        self.visitors.tick()
        self.buffers.isCrowded = self.visitors.isCrowded
        self.endDetachedLinks()
        let ended = self.stalled.relieve(self.budget, among: { self.ownedLinks }, now: self.loop.now)
        if ended > 0 {
            self.metrics.hit(.memory, ended)
            self.log.logger.warning(
                "memory is short: \(counted(ended, "stalled stream")) ended, the longest-stalled first")
        }
        self.refused.tick()
        let count = self.all.reduce(0) { $0 + $1.link.streamCount }
        if count != self.streamCount {
            self.streamCount = count
            self.send(.streams(count))
        }
    }

    /// While memory is short, ends links that wait for their agents: those that keep most for them first.
    private func endDetachedLinks() {
        guard StalledStreams.isShort(self.budget) else { return }
        let waiting = self.links.values.filter { $0.link.detachedSince != nil && $0.link.keptBytes > 0 }
        for link in waiting.sorted(by: { $0.link.keptBytes > $1.link.keptBytes }) {
            guard StalledStreams.isShort(self.budget) else { return }
            self.metrics.hit(.memory)
            link.link.close(.ended(.overloaded, "memory is short"))
        }
    }

    // MARK: - Operator commands

    private var all: [WorkerLink] { Array(self.links.values) + self.delivering.values }

    private func census(withStreams: Bool) -> WorkerCensus {
        var census = WorkerCensus()
        for link in self.all { census.streamsByLink[link.id] = link.link.streamCount }
        for link in self.links.values { census.streamsByName.merge(link.streamsByName) { $0 + $1 } }
        if withStreams {
            // Links without an identity have not logged in.
            for link in self.all where link.label.identity != nil {
                census.streams += link.link.openEdges.map { link.report(of: $0) }
            }
        }
        census.figures = self.metrics.figures
        census.figures.visitors = self.visitors.count
        census.figures.granted = (self.budget.used, self.budget.limit)
        census.figures.traffic = self.exposures.values.map { ($0.name, $0.meter.traffic) }
        return census
    }

    /// Closes the links and streams of a network.
    private func cut(_ network: Network) -> (links: Int, streams: Int) {
        var links = 0
        var streams = 0
        func bansAgent(_ link: WorkerLink) -> Bool {
            [link.label.peer, link.label.proxy].contains { $0.map { network.bans(WireAddress($0)) } ?? false }
        }
        for link in self.links.values where link.link.isOpen {
            if bansAgent(link) {
                links += 1
                link.link.close(.ended(.denied, "its address was banned"))
            } else {
                streams += link.link.abortStreams(.denied) { network.bans($0.visitor) }
            }
        }
        for link in self.delivering.values {
            let isAgents = bansAgent(link)
            streams += link.link.abortStreams(.denied) { isAgents || network.bans($0.visitor) }
        }
        return (links, streams)
    }

    // MARK: - For links and names

    func tell(_ report: WorkerReport) { self.send(report) }

    func tell(_ news: @autoclosure () -> StreamNews) {
        if self.isWatched { self.send(.news(news())) }
    }

    func turnAway(_ socket: SocketStream, _ alert: TLSAlert, isVersion1: Bool) {
        self.refused.refuse(socket, alert, isVersion1: isVersion1)
    }

    /// The agent at `greeter` wants to continue a link on this connection.
    func resume(_ resume: Resume, on greeter: WorkerLink) {
        guard let former = self.resumable[resume.sessionID], former.link.canResume else {
            return greeter.link.refuse(resume)
        }
        guard former.link.isProven(resume, on: greeter.link) else {
            self.send(.notProven(greeter.id))
            return greeter.link.refuse(resume)
        }
        guard former.link.resume(resume, on: greeter.link) == .resumed else { return }
        self.links[greeter.id] = nil
        self.send(.resumed(former.id, on: greeter.id))
        former.resumed(at: greeter.label)
    }

    /// The link is not resumed any more.
    func forget(_ link: WorkerLink) {
        if let key = link.link.sessionKey { self.resumable[key.id] = nil }
    }

    func ended(_ link: WorkerLink, _ end: LinkEnd) {
        self.forget(link)
        self.links[link.id] = nil
        self.delivering[link.id] = link
        self.send(.ended(link.id, end))
    }

    func emptied(_ link: WorkerLink) {
        self.delivering[link.id] = nil
        self.send(.emptied(link.id))
    }
}

extension Worker: VisitorRoom {
    func isOnlyAgent(_ agent: AgentIdentity) -> Bool {
        self.namesByAgent.isEmpty || (self.namesByAgent.count == 1 && self.namesByAgent[agent] != nil)
    }

    func endStalledStream(of agent: AgentIdentity?) -> AgentIdentity? {
        let ended = self.stalled.endOldest(of: agent, among: { self.ownedLinks }, now: self.loop.now)
        if ended != nil { self.metrics.hit(.visitors) }
        return ended
    }

    private var ownedLinks: [StalledStreams.Owned] {
        self.links.values.compactMap { link in link.label.identity.map { ($0, link.link) } }
    }
}
