internal import GatewayCore
internal import Journal
internal import Logging
internal import Modules
internal import Reactor
internal import Relay
internal import Secure
internal import Timing
internal import Tunnel
internal import Wire

// MARK: - Unauthenticated connections

extension AgentSessions {
    private static let noRoomEnd = LinkEnd.ended(.tooManyLinks, "made room for a newer connection")

    /// A connection was accepted.
    ///
    /// - Returns: its session; nil if its source is at the limit and all its connections are delayed by its penalty.
    func admit(_ peer: SocketAddress, at local: SocketAddress?, isVersion1: Bool) -> AgentSession? {
        let source = self.parts.sources.source(ofAgentAt: peer, at: local)
        let session = self.add(peer, source, isVersion1: isVersion1)
        if self.admit(session) { return session }
        self.remove(session)
        return nil
    }

    /// Counts an unauthenticated connection; returns false if its source is at the limit.
    private func admit(_ session: AgentSession) -> Bool {
        let isSourceFull = self.admission.isFull(of: session.source)
        switch self.admission.connected(session.id, from: session.source, now: self.parts.loop.now) {
        case .admit: return true
        case .admitInsteadOf(let other):
            self.parts.metrics.hit(isSourceFull ? .strangersPerSource : .strangers)
            // No penalty: being the slowest of many connections is not an offence.
            if let other = self[other] { self.cut(other, Self.noRoomEnd) }
            return true
        case .refuse:
            self.parts.metrics.hit(.strangersPerSource)
            return false
        }
    }

    /// Whether there is room for one more connection. If necessary, makes room by cutting a link that is already
    /// ending.
    func hasRoom() -> Bool {
        guard self.sessions.count >= self.parts.plan.links else { return true }
        // Only `.ending`: a link that was cut has made room already.
        guard let last = self.sessions.values.first(where: { $0.link == .ending }) else { return false }
        self.cut(last, Self.noRoomEnd)
        return true
    }

    /// A trusted proxy's header gave the agent's address. From here on, the connection counts for that address.
    func introduced(_ session: AgentSession, _ address: SocketAddress) {
        guard !session.isEnding else { return }
        (session.label.proxy, session.label.peer) = (session.label.peer, address)
        session.source = self.parts.sources.source(of: address, at: nil)
        guard !self.bans.contains(address) else {
            return self.parts.send(.turnAway(session.id, .ended(.denied, "its address is banned"), .accessDenied))
        }
        self.admission.left(session.id)
        guard self.admit(session) else {
            let text = "its source has too many throttled connections"
            return self.parts.send(.turnAway(session.id, .ended(.tooManyLinks, text), .internalError))
        }
        self.parts.send(.proceed(session.id))
    }

    /// The first message of the handshake is complete. Delays the handshake if its source has a penalty.
    func greeted(_ session: AgentSession) {
        guard !session.isEnding else { return }
        session.hasGreeted = true
        let wait = self.admission.greeted(session.id, now: self.parts.loop.now)
        if wait > 0 {
            self.parts.metrics.hit(.penaltyWait)
            let seconds = (wait + 999) / 1_000
            self.parts.log.write(
                .info, .strangers, by: session.label,
                "the handshake of \(session.label.peer) is delayed by \(seconds) s after failed attempts from its source"
            )
        }
        self.parts.send(.shakeHands(session.id, after: wait))
    }

    /// The handshake is complete.
    func secured(_ session: AgentSession, pin: String?) {
        self.admission.progressed(session.id, now: self.parts.loop.now)
        session.certificatePin = pin
    }

    private func penalize(_ session: AgentSession, _ offence: Offence) {
        let hasDroppedAnother = self.admission.penalize(session.source, offence, now: self.parts.loop.now)
        if hasDroppedAnother { self.parts.metrics.hit(.penaltyTable) }
    }

    /// A connection ended before its login. Its source gets a penalty if it violated the protocol, sent no login or was
    /// too slow.
    func strangerLeft(_ session: AgentSession, _ end: LinkEnd) {
        switch end {
        case .ended(.loginRefused, _), .ended(.notLoopback, _), .ended(.methodNotSupported, _),
            .ended(.tooManyLinks, _), .ended(.denied, _), .ended(.drain, _), .ended(.overloaded, _),
            .ended(.internalError, _), .ended(.replaced, _):
            return
        case .ended(.handshakeTimeout, _): self.penalize(session, .tooSlow)
        case .closedByPeer, .failed, .goAway: self.penalize(session, .noLogin)
        case .security, .otherProtocol, .violation, .ended: self.penalize(session, .protocolError)
        }
        let level: Logger.Level = Self.isHealthCheck(session, end) ? .debug : .info
        self.parts.log.write(level, .strangers, by: session.label, "no login from \(session.label): \(end)")
    }

    /// Load balancers connect every second to check that the port is open.
    private static func isHealthCheck(_ session: AgentSession, _ end: LinkEnd) -> Bool {
        guard session.source.standing != .stranger, !session.hasGreeted else { return false }
        switch end {
        case .closedByPeer, .failed: return true
        default: return false
        }
    }
}
