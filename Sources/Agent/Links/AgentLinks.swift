internal import Journal
internal import Logging
internal import Reactor
internal import Relay
internal import Secure
internal import Settings
internal import Tunnel
internal import Wire

/// Receives events of the current link and of attempts to make one.
protocol AgentLinksOwner: AnyObject {
    /// The TCP connection is up; the handshake follows.
    func connected()
    /// Checks the gateway's key and returns the login.
    ///
    /// - Parameter isLoopback: whether the gateway is on this machine.
    func judge(_ peer: ChannelPeer, isLoopback: Bool) -> PeerVerdict
    func welcomed(_ welcome: Welcome)
    func registered(_ answer: Registered)
    func goAway(_ goAway: GoAway)
    /// The connection of the current link is gone. Call ``AgentLinks/dial(_:)`` for the next one.
    ///
    /// - Parameter window: how long the link waits for it, in milliseconds.
    func detached(_ end: LinkEnd, window: UInt64)
    /// The connection of the current link answers nothing. Call ``AgentLinks/dial(_:)`` for another one beside it.
    ///
    /// - Parameter window: how long the link waits if its connection breaks, in milliseconds.
    func stuck(window: UInt64)
    /// The connection of the current link answers again, and the attempt to make another one was given up.
    func moves()
    /// The current link continues on a new connection.
    ///
    /// - Parameter away: how long it had none, in milliseconds.
    func resumed(after away: UInt64)
    /// The connection on which the current link might have continued has ended.
    func successorFailed(_ end: LinkEnd)
    /// The current link is over; it had no connection.
    func forgotten(_ end: LinkEnd)
    /// The current link has ended.
    func lost(_ end: LinkEnd)
    /// The attempt to make a link failed.
    func dialFailed(_ failure: LinkRace.Failure)
    /// A link is closed, with its backend connections.
    func calmed()
}

/// The links of an agent: candidates of a race, the current link, and links that are ending.
///
/// A connection that is made while the current link waits for one is its *successor*: the link continues there, or the
/// agent logs in there and the current link ends.
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
    /// Set while a link is being made.
    private var race: LinkRace?
    /// The current link.
    private var session: GatewaySession?
    private var replacement = Replacement()
    /// Links that take no new streams and finish the open ones.
    private var leaving: [GatewaySession] = []
    /// Closed links whose backends still receive buffered bytes.
    private var delivering: [GatewaySession] = []
    /// Gateway addresses that accepted a connection and sent nothing. They are tried last.
    private var silentAddresses: Set<SocketAddress> = []
    /// Silence is logged once for each link.
    private var hasReportedSilence = false
    private var segment: SegmentChoice

    /// - Parameters:
    ///   - limits: limits of each link.
    ///   - budget: budget of all links together.
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

    /// - Parameter owner: receives the events; held weakly.
    func dial(_ owner: any AgentLinksOwner) {
        self.owner = owner
        // A resumed link must not wait for an attempt that a broken network swallowed.
        let patience = self.session == nil ? .max : self.replacement.nextPatience()
        var plan = Connector.Plan()
        plan.avoided = self.silentAddresses
        plan.largestSegment = self.segment.largest
        self.race = LinkRace(
            loop: self.loop, to: .host(self.gateway.host, port: self.gateway.port), plan: plan,
            atMost: min(LinkRace.milliseconds, patience)
        ) {
            [unowned self] (socket) throws(SecurityError) in
            try self.begin(socket, patience: patience)
        } silent: { [unowned self] address in
            self.reportSilence(of: address)
        } failed: { [unowned self] failure in
            self.race = nil
            // Only a failed dial disproves a trial of smaller segments.
            switch failure {
            case .ended: break
            case .unreachable, .unusable: self.segment.failed()
            }
            self.owner?.dialFailed(failure)
        }
    }

    /// - Parameter patience: milliseconds for the handshake, and for HELLO and RESUMED.
    private func begin(_ socket: SocketStream, patience: UInt64) throws(SecurityError) -> GatewaySession {
        self.owner?.connected()
        var limits = self.limits
        limits.handshakeDeadline = min(limits.handshakeDeadline, patience)
        limits.loginDeadline = min(limits.loginDeadline, patience)
        let transport = try LinkTransport(
            socket: socket, version: self.version, role: .agent, handshakeDeadline: limits.handshakeDeadline,
            budget: self.budget, buffers: self.buffers)
        let link = LinkSession(
            transport: transport, limits: limits, budget: self.budget, software: AgentProgram.software)
        let session = GatewaySession(link: link, owner: self, streams: self.streams)
        link.start()
        return session
    }

    func register(_ requests: [Register]) { self.session?.link.register(requests) }

    func unregister(_ exposures: [UInt16]) { self.session?.link.unregister(exposures) }

    /// Lets the current link finish its streams. Call ``dial(_:)`` for the next one.
    func leave() {
        guard let session = self.session else { return }
        if self.replacement.reason == .stuck { self.cancelRace("the link is left") }
        self.replacement.reason = .none
        self.session = nil
        self.leaving.append(session)
        // Only the current link is resumed.
        session.link.forbidResuming()
    }

    /// Ends the current link. Call ``dial(_:)`` for the next one.
    func leave(_ text: String) {
        guard let session = self.session else { return }
        self.leave()
        session.link.end(.none, text: text)
    }

    /// Stops dialling and lets the current link finish its streams.
    func drain(_ text: String) {
        self.cancelRace(text)
        if let session = self.session, !session.link.phase.isPastLogin { session.link.end(.none, text: text) }
        self.session?.link.drain(text: text)
        self.session?.link.forbidResuming()
    }

    /// Ends all links with a GOAWAY.
    ///
    /// - Parameter cutsDeliveries: whether bytes buffered for backends are dropped.
    func end(_ text: String, cutsDeliveries: Bool) {
        self.stopWatching()
        self.cancelRace(text)
        for session in self.open { session.link.end(.none, text: text) }
        if cutsDeliveries { self.cutDeliveries() }
    }

    /// Closes all links at once.
    func close(_ text: String) {
        self.stopWatching()
        for session in self.open { session.link.close(.ended(.none, text)) }
        self.cutDeliveries()
    }

    private func cutDeliveries() {
        for session in self.delivering { session.link.cutDeliveries() }
    }

    /// Ends the race and its candidates.
    private func cancelRace(_ text: String) {
        self.abandon(self.candidates, text)
        self.replacement.successor = nil
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
        self.watchConnection()
    }

    /// The addresses or routes of this machine have changed.
    func networkChanged() {
        self.session?.link.networkChanged()
        for session in self.candidates { _ = session.link.closesWithoutAddress() }
    }

    /// Checks whether the connection of the current link is stuck, or moves again while another one is made.
    private func watchConnection() {
        let now = self.loop.now
        let link = self.session?.link
        let stuckAt = self.replacement.stuckAt(link?.stuckAt ?? .max, now: now)
        guard let link, link.detachedSince == nil, link.canResume else { return }
        guard stuckAt < .max else { return self.stopReplacing() }
        guard now >= stuckAt else {
            self.stopReplacing()
            let timer =
                self.replacement.stuckTimer ?? LoopTimer(loop: self.loop) { [unowned self] in self.watchConnection() }
            timer.start(after: stuckAt - now)
            self.replacement.stuckTimer = timer
            return
        }
        guard self.replacement.reason != .stuck else { return }
        self.replacement.reason = .stuck
        link.transport.stuck(hasStreams: link.streamCount > 0)
        self.segment.linkEnded(link.transport.advisedSegment)
        self.owner?.stuck(window: link.resumeWindow)
    }

    /// The connection moves again.
    private func stopReplacing() {
        guard self.replacement.reason == .stuck else { return }
        self.replacement.ended()
        self.cancelRace("the other connection answers again")
        self.owner?.moves()
    }

    private func stopWatching() {
        self.replacement.stuckTimer?.close()
        self.replacement.stuckTimer = nil
    }

    // MARK: - State

    /// All links that are not closed.
    private var open: [GatewaySession] {
        self.leaving + (self.session.map { [$0] } ?? []) + self.candidates
    }

    /// New connections, on which the current link may continue or another one begin.
    private var candidates: [GatewaySession] {
        (self.replacement.successor.map { [$0.session] } ?? []) + (self.race?.sessions ?? [])
    }

    var streamCount: Int { (self.open + self.delivering).reduce(0) { $0 + $1.link.streamCount } }

    var isUp: Bool { self.session.map { $0.link.phase == .up && $0.link.detachedSince == nil } ?? false }

    /// Whether there is a current link, with or without a connection.
    var hasLink: Bool { self.session != nil }

    /// Whether the gateway drains the current link.
    var isDraining: Bool { self.session?.link.phase == .draining }

    /// Whether the gateway is on this machine, by the addresses of the current link.
    var isGatewayLocal: Bool { self.session?.link.transport.isLocal ?? false }

    /// Whether all links and their backend connections are closed.
    var isEmpty: Bool { self.session == nil && self.leaving.isEmpty && self.delivering.isEmpty }

    // MARK: - Log

    /// Logs that an address has accepted a connection and sent nothing.
    private func reportSilence(of address: SocketAddress) {
        guard !self.hasReportedSilence else { return }
        self.hasReportedSilence = true
        self.log.logger.notice(
            """
            \(address) accepted the connection but has not answered yet; still waiting: it may be slow, or it may \
            throttle this address after failed logins
            """, metadata: self.log.about())
    }

    private func reportSmallSegments(_ bytes: Int) {
        self.log.logger.warning(
            """
            large packets to \(self.gateway) are lost and small ones arrive: links now use segments of \(bytes) bytes; \
            to do so from the start, set 'link-mss = \(bytes)'
            """)
    }
}

extension AgentLinks: GatewaySessionOwner {
    func session(_ session: GatewaySession, judge peer: ChannelPeer) -> PeerVerdict {
        if let race = self.race {
            self.race = nil
            let others = race.won(session)
            self.silentAddresses = Set(others.compactMap(\.address))
            self.abandon(others, "another address of the gateway answered first")
        }
        let verdict =
            self.owner?.judge(peer, isLoopback: session.address?.isLoopback ?? false)
            ?? .refuse(SecurityError("the agent is stopping"))
        guard let current = self.session else {
            self.session = session
            return verdict
        }
        guard case .proceed(let login) = verdict else {
            self.replacement.successor = (session, nil)
            return verdict
        }
        // A proof of the link's secret is only for the gateway that issued it.
        guard current.link.canResume, current.pin == peer.pin else {
            self.replace(current, by: session, "the gateway has another key")
            return verdict
        }
        self.replacement.successor = (session, login)
        return .proceed(nil)
    }

    /// The connection of `session` becomes the current link, and the former one ends.
    private func replace(_ former: GatewaySession, by session: GatewaySession, _ text: String) {
        self.replacement.successor = nil
        self.replacement.reason = .none
        self.session = session
        self.leaving.append(former)
        former.link.close(.ended(.dead, text))
        self.owner?.forgotten(.ended(.dead, text))
    }

    func session(_ session: GatewaySession, greeted hello: Hello) {
        guard session === self.replacement.successor?.session else { return }
        guard let current = self.session, current.link.canResume, hello.keeps != nil,
            current.link.askToResume(on: session.link)
        else {
            return self.logIn("the gateway cannot resume links")
        }
    }

    func session(_ session: GatewaySession, resumed: Resumed) {
        guard session === self.replacement.successor?.session else { return }
        guard resumed.code == .none else { return self.logIn("the gateway does not have the link any more") }
        // The link has ended since RESUME was sent.
        guard let current = self.session else { return session.link.end(.none, text: "the link is over") }
        let since = current.link.detachedSince ?? self.loop.now
        current.link.resumed(resumed, on: session.link)
        // After an invalid answer both links end.
        guard current === self.session, current.link.detachedSince == nil else { return }
        self.replacement.successor = nil
        self.began()
        self.owner?.resumed(after: self.loop.now - since)
    }

    /// Logs in on the successor's connection, because the current link cannot be resumed.
    private func logIn(_ text: String) {
        guard let (session, login) = self.replacement.successor, let login else { return }
        self.replacement.successor = nil
        if let current = self.session { self.replace(current, by: session, text) } else { self.session = session }
        session.link.login(login)
    }

    func sessionDetached(_ session: GatewaySession, _ end: LinkEnd) {
        guard session === self.session else { return }
        self.replacement.reason = .lost
        self.segment.linkEnded(session.link.transport.advisedSegment)
        self.owner?.detached(end, window: session.link.resumeWindow)
    }

    func session(_ session: GatewaySession, welcomed welcome: Welcome) {
        guard session === self.session else { return }
        self.began()
        self.owner?.welcomed(welcome)
    }

    /// The current link has a connection that works.
    private func began() {
        self.replacement.ended()
        self.hasReportedSilence = false
        if let bytes = self.segment.linkBegan() { self.reportSmallSegments(bytes) }
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
        } else if session === self.replacement.successor?.session {
            self.replacement.successor = nil
            self.owner?.successorFailed(end)
        } else if session === self.session {
            self.session = nil
            let wasLost = self.replacement.reason == .lost
            self.replacement.reason = .none
            guard !wasLost, self.race == nil, self.replacement.successor == nil else {
                self.owner?.forgotten(end)
                return
            }
            self.segment.linkEnded(session.link.transport.advisedSegment)
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
