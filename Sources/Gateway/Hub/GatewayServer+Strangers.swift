internal import GatewayCore
internal import Journal
internal import Logging
internal import Modules
internal import ProxyProtocol
package import Reactor
internal import Relay
internal import Secure
internal import Timing
internal import Tunnel
internal import Wire

/// Strangers: connections to the agent port until their login is judged.
extension GatewayServer {
    // MARK: - Before the handshake

    /// Counts an unauthenticated connection; false at the limit of its source.
    func admit(_ id: UInt64, from source: Source) -> Bool {
        let isSourceFull = self.admission.isFull(of: source)
        switch self.admission.connected(id, from: source, now: self.loop.now) {
        case .admit: return true
        case .admitInsteadOf(let other):
            self.metrics.hit(isSourceFull ? .strangersPerSource : .strangers)
            // Without a penalty: being slow among many connections is not an offence.
            self.sessions[other]?.link.close(.ended(.tooManyLinks, "made room for a newer connection"))
            return true
        case .refuse:
            self.metrics.hit(.strangersPerSource)
            return false
        }
    }

    /// A PROXY header arrived. From an untrusted program on this machine it can only take rights away: any local user
    /// could claim any address.
    func introduced(_ session: AgentSession, _ header: ProxyHeader) -> IntroductionVerdict {
        let isTrusted = self.sources.isProxy(session.peer)
        guard isTrusted || session.link.transport.isLocal else {
            let text = "a PROXY header from an address that is not in accept-proxy-protocol"
            return .refuse(.security(SecurityError(text)))
        }
        guard case .proxied(let wire, _) = header, let address = SocketAddress(wire) else { return .proceed }
        if !address.isLoopback { session.loseLoopbackRights() }
        guard isTrusted else { return .proceed }
        let source = self.sources.source(of: address, at: nil)
        session.isBehindProxy(at: address, source: source)
        guard !self.bans.contains(address) else {
            return .tell(.ended(.denied, "its address is banned"), .accessDenied)
        }
        self.admission.left(session.id)
        guard self.admit(session.id, from: source) else {
            let text = "all connections that its source may have wait for its penalty"
            return .tell(.ended(.tooManyLinks, text), .internalError)
        }
        return .proceed
    }

    /// Ends a connection before its handshake. Version 1 has no alerts.
    func refuse(_ stream: SocketStream, _ alert: TLSAlert, isVersion1: Bool) {
        if isVersion1 { stream.reset() } else { self.refusedAgents.take(stream, alert) }
    }

    /// Milliseconds that the handshake of an unauthenticated connection waits.
    func greeted(_ session: AgentSession) -> Milliseconds {
        session.hasGreeted = true
        let wait = self.admission.greeted(session.id, now: self.loop.now)
        guard wait > 0 else { return 0 }
        self.metrics.hit(.penaltyWait)
        let seconds = (wait + 999) / 1_000
        session.log(
            .info, .strangers,
            "the handshake of \(session.peer) waits for \(seconds) s after what its address did before")
        return wait
    }

    // MARK: - Until the verdict

    func admissionProgressed(_ session: AgentSession) {
        self.admission.progressed(session.id, now: self.loop.now)
    }

    /// Whether a login may be judged now. It counts for its source until `loginJudged`.
    func mayBeJudged(_ session: AgentSession) -> Bool {
        switch self.admission.loginArrived(session.id) {
        case .judge: return true
        case .judgeInsteadOf(let other):
            self.metrics.hit(.logins)
            self.sessions[other]?.makeRoomForLogin()
            return true
        case .refuse:
            self.metrics.hit(.logins)
            return false
        }
    }

    /// There is a verdict about a login.
    func loginJudged(_ session: AgentSession) {
        self.admission.left(session.id)
    }

    func penalize(_ session: AgentSession, _ offence: Offence) {
        let hasDroppedAnother = self.admission.penalize(session.source, offence, now: self.loop.now)
        self.countPenalty(hasDroppedAnother: hasDroppedAnother)
    }

    private func countPenalty(hasDroppedAnother: Bool) {
        if hasDroppedAnother { self.metrics.hit(.penaltyTable) }
    }

    /// The authenticator refused a login.
    func loginRefused(_ session: AgentSession, _ credentials: Credentials, pin: String?) {
        let shown: [UInt8] =
            switch credentials {
            case .version1(let token): Array(token.utf8)
            case .version2(let login):
                switch login.method {
                case .token: Array(login.token.utf8)
                case .certificate: Array((pin ?? "").utf8)
                default: login.instanceKey
                }
            }
        let hash = SHA256.hash(shown).prefix(8).reduce(0) { $0 << 8 | UInt64($1) }
        let hasDroppedAnother = self.admission.loginRefused(hash, from: session.source, now: self.loop.now)
        self.countPenalty(hasDroppedAnother: hasDroppedAnother)
    }

    /// A connection ended before its login.
    func strangerLeft(_ session: AgentSession, _ end: LinkEnd) {
        switch end {
        case .ended(.loginRefused, _), .ended(.notLoopback, _), .ended(.methodNotSupported, _),
            .ended(.tooManyLinks, _), .ended(.denied, _), .ended(.drain, _), .ended(.overloaded, _):
            return
        case .ended(.handshakeTimeout, _): self.penalize(session, .tooSlow)
        case .closedByPeer, .failed, .goAway: self.penalize(session, .noLogin)
        case .security, .otherProtocol, .violation, .ended: self.penalize(session, .protocolError)
        }
        let level: Logger.Level = Self.isHealthCheck(session, end) ? .debug : .info
        session.log(level, .strangers, "no login from \(session.label): \(end)")
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

extension AgentSession: LinkGatekeeper {
    func transport(_ transport: LinkTransport, didReceive header: ProxyHeader) -> IntroductionVerdict {
        self.gateway.introduced(self, header)
    }

    func transport(_ transport: LinkTransport, leaves socket: SocketStream, _ alert: TLSAlert) {
        self.gateway.refuse(socket, alert, isVersion1: self.link.protocolNumber == 1)
    }

    func transportDidGreet(_ transport: LinkTransport) -> Milliseconds { self.gateway.greeted(self) }
}

extension GatewayServer: SocketListenerDelegate {
    package func listener(_ listener: SocketListener, didAccept stream: SocketStream) {
        guard let peer = stream.peerAddress else {
            self.metrics.arrived(.gone)
            return stream.reset()
        }
        let isVersion1 = self.agentListeners.isVersion1(listener)
        func refuse(_ result: ArrivalResult, _ alert: TLSAlert) {
            self.metrics.arrived(result)
            self.refuse(stream, alert, isVersion1: isVersion1)
        }
        guard !self.bans.contains(peer) else { return refuse(.banned, .accessDenied) }
        guard self.hasRoomForSession() else { return refuse(.noRoom, .internalError) }
        let id = self.nextID
        self.nextID += 1
        let source = self.sources.source(ofAgentAt: peer, at: stream.localAddress)
        guard self.admit(id, from: source) else { return refuse(.sourceFull, .internalError) }
        self.metrics.arrived(.admitted)
        let version =
            isVersion1 ? LinkProtocol.version1 : .version2(self.certificate.context, serverName: nil)
        do throws(SecurityError) {
            let transport = try LinkTransport(
                socket: stream, version: version, role: .gateway,
                handshakeDeadline: self.linkLimits.handshakeDeadline, budget: self.budget, buffers: self.buffers,
                meter: self.metrics.relay)
            let link = LinkSession(
                transport: transport, limits: self.linkLimits, budget: self.budget, software: GatewayServer.software,
                meter: self.metrics.relay)
            self.sessions[id] = AgentSession(id: id, link: link, peer: peer, source: source, gateway: self)
            link.start()
        } catch {
            self.admission.left(id)
            self.peerLog.write(.error, .strangers, of: .stranger(peer), "\(peer): \(error)", .about([.peer: peer]))
            stream.close()
        }
    }

    /// Makes room, if need be, by cutting a connection that only waits for its last words to be read.
    private func hasRoomForSession() -> Bool {
        guard self.sessions.count >= self.plan.links else { return true }
        guard let last = self.sessions.values.first(where: { $0.link.isLingering }) else { return false }
        last.link.close(.ended(.tooManyLinks, "made room for a newer connection"))
        return true
    }

    package func listener(_ listener: SocketListener, didFail error: UVError) {
        self.peerLog.write(
            .info, .strangers, of: .unknownStrangers, "an agent could not be accepted: \(error)",
            .about([.error: error]))
    }
}
