internal import Journal
internal import Logging
internal import Reactor
internal import Relay
internal import Secure
internal import Settings
internal import Tunnel
internal import Wire

/// What the links report to the agent: all of it is about the present link, or the attempt to make one.
protocol AgentLinksOwner: AnyObject {
    /// A connection to the gateway is there; its handshake comes.
    func connected()
    /// Whether the gateway's key is the right one, and with what to log in.
    ///
    /// - Parameter isLoopback: whether the gateway is on this machine.
    func judge(_ peer: ChannelPeer, isLoopback: Bool) -> PeerVerdict
    func welcomed(_ welcome: Welcome)
    func registered(_ answer: Registered)
    func goAway(_ goAway: GoAway)
    /// The present link is over.
    func lost(_ end: LinkEnd)
    /// No link could be made.
    func dialFailed(_ failure: LinkRace.Failure)
    /// There may be nothing left that is waited for.
    func calmed()
}

/// The links of an agent: those that may become the present one, the present one, and those that are being ended.
final class AgentLinks {
    private let loop: EventLoop
    private let gateway: HostPort
    private let version: LinkProtocol
    private let limits: LinkLimits
    private let budget: ByteBudget
    private let buffers = RelayBuffers()
    private let log: GatewayLog
    private let streams: any GatewayStreams
    private weak var owner: (any AgentLinksOwner)?
    /// While a link is being made.
    private var race: LinkRace?
    /// The present link.
    private var session: GatewaySession?
    /// Links that only finish their streams.
    private var leaving: [GatewaySession] = []
    /// Links that are over, whose backends still get what came before.
    private var delivering: [GatewaySession] = []
    /// Addresses of the gateway that took a connection and then said nothing: they are tried last.
    private var silentAddresses: Set<SocketAddress> = []
    /// Whether the silence of an address was logged since the last link.
    private var hasReportedSilence = false
    private var segment: SegmentChoice

    /// - Parameters:
    ///   - limits: of each link.
    ///   - budget: of all links together.
    init(
        loop: EventLoop, settings: AgentSettings, version: LinkProtocol, limits: LinkLimits, budget: ByteBudget,
        log: GatewayLog, streams: any GatewayStreams
    ) {
        self.loop = loop
        self.gateway = settings.gateway
        self.version = version
        self.limits = limits
        self.budget = budget
        self.log = log
        self.streams = streams
        self.segment = SegmentChoice(configured: settings.linkMSS)
    }

    // MARK: - Commands

    /// - Parameter owner: gets the reports; it is not kept alive.
    func dial(_ owner: any AgentLinksOwner) {
        self.owner = owner
        var plan = Connector.Plan()
        plan.avoided = self.silentAddresses
        plan.largestSegment = self.segment.largest
        self.race = LinkRace(loop: self.loop, to: .host(self.gateway.host, port: self.gateway.port), plan: plan) {
            [unowned self] (socket) throws(SecurityError) in
            try self.begin(socket)
        } silent: { [unowned self] address in
            self.reportSilence(of: address)
        } failed: { [unowned self] failure in
            self.race = nil
            // A link that connected and ended says nothing about its segments.
            switch failure {
            case .ended: break
            case .unreachable, .unusable: self.segment.failed()
            }
            self.owner?.dialFailed(failure)
        }
    }

    private func begin(_ socket: SocketStream) throws(SecurityError) -> GatewaySession {
        self.owner?.connected()
        let transport = try LinkTransport(
            socket: socket, version: self.version, role: .agent, handshakeDeadline: self.limits.handshakeDeadline,
            budget: self.budget, buffers: self.buffers)
        let link = LinkSession(
            transport: transport, limits: self.limits, budget: self.budget, software: AgentProgram.software)
        let session = GatewaySession(link: link, owner: self, streams: self.streams)
        link.start()
        return session
    }

    func register(_ requests: [Register]) { self.session?.link.register(requests) }

    func unregister(_ exposures: [UInt16]) { self.session?.link.unregister(exposures) }

    /// The present link only finishes its streams, and there is none until the next ``dial(_:)``.
    func leave() {
        guard let session = self.session else { return }
        self.leaving.append(session)
        self.session = nil
    }

    /// The same, for a link that has no use for its streams either.
    func leave(_ text: String) {
        guard let session = self.session else { return }
        self.leave()
        session.link.end(.none, text: text)
    }

    /// No next link is made; the present one finishes its streams.
    func drain(_ text: String) {
        self.cancelRace(text)
        if let session = self.session, !session.link.phase.isPastLogin { session.link.end(.none, text: text) }
        self.session?.link.drain(text: text)
    }

    /// All of them end with their last words.
    ///
    /// - Parameter cutsDeliveries: whether backends do not get any more what came before.
    func end(_ text: String, cutsDeliveries: Bool) {
        self.cancelRace(text)
        for session in self.open { session.link.end(.none, text: text) }
        if cutsDeliveries { self.cutDeliveries() }
    }

    /// All of them are closed, without waiting for last words.
    func close(_ text: String) {
        for session in self.open { session.link.close(.ended(.none, text)) }
        self.cutDeliveries()
    }

    private func cutDeliveries() {
        for session in self.delivering { session.link.cutDeliveries() }
    }

    /// What is connected for the next link is closed.
    private func cancelRace(_ text: String) {
        self.abandon(self.race?.sessions ?? [], text)
        self.race?.cancel()
        self.race = nil
    }

    private func abandon(_ sessions: [GatewaySession], _ text: String) {
        self.leaving += sessions
        for session in sessions { session.link.end(.none, text: text) }
    }

    /// - Parameter slept: whether the machine was suspended since the last call.
    func tick(slept: Bool) {
        for session in self.open {
            if slept { session.link.clockJumped() }
            session.link.tick()
        }
        for session in self.leaving where session.link.streamCount == 0 { session.link.end(.none, text: "done") }
    }

    // MARK: - What there is

    /// The present link's or those that may become it, and those that only finish their streams.
    private var open: [GatewaySession] {
        self.leaving + (self.session.map { [$0] } ?? []) + (self.race?.sessions ?? [])
    }

    var streamCount: Int { (self.open + self.delivering).reduce(0) { $0 + $1.link.streamCount } }

    var isUp: Bool { self.session?.link.phase == .up }

    /// Whether the gateway has asked the present link to finish its streams.
    var isDraining: Bool { self.session?.link.phase == .draining }

    /// Whether the gateway is on this machine, as far as the present link can tell.
    var isGatewayLocal: Bool { self.session?.link.transport.isLocal ?? false }

    /// Whether nothing is waited for, not even last words.
    var isEmpty: Bool { self.session == nil && self.leaving.isEmpty && self.delivering.isEmpty }

    // MARK: - What is told

    /// An address has accepted a connection and not answered: logged once until the next link.
    private func reportSilence(of address: SocketAddress) {
        guard !self.hasReportedSilence else { return }
        self.hasReportedSilence = true
        self.log.logger.info(
            """
            \(address) has taken the connection and not answered yet; waiting: it may be slow, or let this address \
            wait after wrong logins or connections without a login
            """, metadata: self.log.about())
    }

    private func reportSmallSegments(_ bytes: Int) {
        self.log.logger.warning(
            """
            large packets seem to be lost between here and \(self.gateway), small ones pass: links use segments of \
            \(bytes) bytes from now on; to do so from the start, set 'link-mss = \(bytes)'
            """)
    }
}

extension AgentLinks: GatewaySessionOwner {
    func session(_ session: GatewaySession, judge peer: ChannelPeer) -> PeerVerdict {
        if let race = self.race {
            self.race = nil
            let others = race.won(session)
            self.session = session
            self.silentAddresses = Set(others.compactMap(\.address))
            self.abandon(others, "another address of the gateway was faster")
        }
        let isLoopback = session.link.transport.peerAddress?.isLoopback ?? false
        return self.owner?.judge(peer, isLoopback: isLoopback) ?? .refuse(SecurityError("the agent stops"))
    }

    func session(_ session: GatewaySession, welcomed welcome: Welcome) {
        guard session === self.session else { return }
        self.hasReportedSilence = false
        if let bytes = self.segment.linkBegan() { self.reportSmallSegments(bytes) }
        self.owner?.welcomed(welcome)
    }

    func session(_ session: GatewaySession, registered answer: Registered) {
        guard session === self.session else { return }
        self.owner?.registered(answer)
    }

    func session(_ session: GatewaySession, goAway: GoAway) {
        guard session === self.session else { return }
        self.owner?.goAway(goAway)
    }

    func sessionEnded(_ session: GatewaySession, _ end: LinkEnd) {
        self.delivering.append(session)
        if !session.isSecured, let address = session.address { self.silentAddresses.insert(address) }
        if let race = self.race, race.sessions.contains(where: { $0 === session }) {
            race.ended(session, end)
        } else if session === self.session {
            self.segment.linkEnded(session.link.transport.advisedSegment)
            self.session = nil
            self.owner?.lost(end)
        } else {
            self.leaving.removeAll { $0 === session }
        }
    }

    func sessionEmptied(_ session: GatewaySession) {
        self.delivering.removeAll { $0 === session }
        self.owner?.calmed()
    }
}
