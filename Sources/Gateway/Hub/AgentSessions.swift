internal import GatewayCore
internal import Journal
internal import Logging
internal import Modules
internal import Reactor
internal import Relay
internal import Secure
internal import Settings
internal import Timing
internal import Tunnel
internal import Wire

/// The connections to the agent port: admits them, has their logins authenticated, and revokes what was granted.
/// ``GatewayNames`` handles their names.
final class AgentSessions {
    /// Dependencies.
    struct Parts {
        let loop: EventLoop
        let limits: LimitSettings
        let plan: ResourcePlan
        let sources: SourceRules
        let names: GatewayNames
        let authenticator: any Authenticator
        let metrics: GatewayMetrics
        let log: PeerLog
        let budget: ByteBudget
        let send: (WorkerOrder) -> Void
    }

    let parts: Parts
    var admission: Admission
    private(set) var sessions: [LinkID: AgentSession] = [:]
    /// Sessions whose link has ended but still delivers buffered bytes to visitors.
    private(set) var delivering: [LinkID: AgentSession] = [:]
    private(set) var bans = BanList()
    private var lastID: LinkID = 0
    let review: RightsReview

    init(_ parts: Parts) {
        self.parts = parts
        self.admission = Admission(limits: AdmissionLimits(parts.limits, parts.plan))
        self.review = RightsReview(loop: parts.loop)
    }

    subscript(id: LinkID) -> AgentSession? { self.sessions[id] }

    var isEmpty: Bool { self.sessions.isEmpty && self.delivering.isEmpty }

    /// Sessions that have logged in and are not ending, oldest first.
    var openSessions: [AgentSession] { self.sessions.values.filter(\.isOpen).sorted { $0.id < $1.id } }

    func add(_ peer: SocketAddress, _ source: Source, isVersion1: Bool) -> AgentSession {
        self.lastID += 1
        let session = AgentSession(
            id: self.lastID, peer: peer, source: source, isVersion1: isVersion1, now: self.parts.loop.now,
            budget: self.parts.budget)
        self.sessions[session.id] = session
        return session
    }

    func remove(_ session: AgentSession) {
        self.admission.left(session.id)
        self.sessions[session.id] = nil
    }

    /// Hands the connection to a worker.
    func hand(_ session: AgentSession, _ socket: ConnectedSocket) {
        self.parts.send(
            .take(
                NewLink(id: session.id, socket: socket, peer: session.label.peer, isVersion1: session.isVersion1)))
    }

    func close() { self.review.close() }

    // MARK: - Bans

    /// False if the list of bans is full.
    func ban(_ network: Network, until: Milliseconds?) -> Bool { self.changeBans { $0.add(network, until: until) } }

    /// False if the network is not banned.
    func unban(_ network: Network) -> Bool { self.changeBans { $0.remove(network) } }

    /// Drops expired bans. Call about once a second.
    func tick() { _ = self.changeBans { $0.forgetExpired(now: self.parts.loop.now) } }

    private func changeBans(_ change: (inout BanList) -> Bool) -> Bool {
        guard change(&self.bans) else { return false }
        self.parts.send(.ban(self.bans))
        return true
    }

    // MARK: - The end of a link

    /// The link is ending or was ordered to end. Later requests of its agent are ignored.
    func ending(_ session: AgentSession) {
        if session.link == .open { session.link = .ending }
        self.parts.names.linkIsEnding(session.id)
    }

    /// Has the worker send the agent the reason and then end the link.
    func end(_ session: AgentSession, _ code: ErrorCode, retryAfterSeconds: UInt16 = 0, text: String) {
        self.ending(session)
        self.parts.send(.end(session.id, Refusal(code: code, text: text), retryAfterSeconds: retryAfterSeconds))
    }

    /// Has the worker close a link at once.
    func cut(_ session: AgentSession, _ end: LinkEnd) {
        session.link = .cut
        self.ending(session)
        self.parts.send(.close(session.id, end))
    }

    /// The agent sent GOAWAY: it accepts no new streams, or is ending the link.
    func saidGoodbye(_ session: AgentSession, _ code: ErrorCode) {
        self.parts.log.write(
            .debug, .detail, by: session.label, "\(session.label) is leaving: \(code)",
            session.label.about([.code: code]))
        self.parts.names.linkIsDraining(session.id)
        self.parts.names.dropNames(of: session.id)
    }

    /// The connection is closed. Buffered bytes may still be on their way to visitors.
    func ended(_ session: AgentSession, _ end: LinkEnd) {
        session.refusalTimer?.close()
        session.refusalTimer = nil
        if case .authenticating(let operation) = session.state {
            self.parts.metrics.loginAbandoned()
            operation.cancel()
        }
        self.expectNoMore(session)
        self.parts.names.linkEnded(session.id)
        session.state = .closed
        session.link = .cut
        let wasUp = session.label.identity != nil
        self.parts.metrics.linkClosed(end, wasUp: wasUp)
        if wasUp {
            self.parts.log.write(.info, .milestone, by: session.label, "link of \(session.label) ended: \(end)")
        } else {
            self.strangerLeft(session, end)
        }
        self.admission.left(session.id)
        self.sessions[session.id] = nil
        self.delivering[session.id] = session
    }

    /// Visitors have received everything that an ended link delivered.
    func emptied(_ id: LinkID) { self.delivering[id] = nil }

    /// The gateway is stopping: agents keep their open streams, and nothing else.
    func drain() {
        for session in self.openSessions {
            self.parts.names.linkIsDraining(session.id)
            self.parts.names.dropNames(of: session.id)
        }
        self.parts.send(.drain)
    }

    /// Ends a link at the operator's request. The agent may reconnect.
    func kick(_ session: AgentSession) {
        self.parts.names.dropNames(of: session.id)
        self.end(session, .drain, retryAfterSeconds: 1, text: "the gateway's operator closed the link")
    }

    /// The limits of a link on streams and names.
    func allowance(_ limits: AgentLimits) -> LinkAllowance {
        LinkAllowance(
            streams: limits.streams ?? self.parts.limits.streamsPerLink,
            names: limits.names ?? self.parts.limits.namesPerLink, agentStreams: limits.streams)
    }
}
