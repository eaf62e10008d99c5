internal import Admission
internal import Journal
internal import Logging
internal import Modules
package import Reactor
internal import Registry
internal import Relay
internal import Secure
internal import Settings
internal import Tunnel
internal import Wire

/// Connections of agents: strangers first, then judged, then links.
extension GatewayServer {
    /// Links of one program: its present one, and one that does not know yet that it is dead.
    static let mostLinksPerRun = 2

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
            .ended(.tooManyLinks, _), .ended(.drain, _), .ended(.overloaded, _):
            return
        case .ended(.handshakeTimeout, _): self.penalize(session, .tooSlow)
        case .closedByPeer, .failed, .goAway: self.penalize(session, .noLogin)
        case .security, .otherProtocol, .violation, .ended: self.penalize(session, .protocolError)
        }
        session.log(.info, .strangers, "no login from \(session.label): \(end)")
    }

    func authenticate(
        _ request: LoginRequest, completion: @escaping (LoginVerdict) -> Void
    ) -> any Cancellable {
        DeadlinedOperation(
            loop: self.loop, milliseconds: Self.moduleDeadline,
            late: .refused(.overloaded, reason: "the authenticator did not answer in time"),
            start: { self.authenticator.authenticate(request, completion: $0) },
            completion: self.metrics.timing(.login, completion))
    }

    /// Whether an agent may register a further name now.
    ///
    /// - Parameter names: that it may have, where that is said for it alone.
    func mayRegister(_ payer: String, names: Int?) -> Bool {
        let usual = self.settings.limits.namesPerAgent
        let limits = names.flatMap { $0 > usual ? RegistrationLimits(namesPerAgent: $0) : nil }
        let isAllowed = self.registrations.take(payer, limits: limits, now: self.loop.now) {
            self.metrics.hit(.registrationTable, $0)
        }
        guard isAllowed else {
            self.metrics.hit(.registrations)
            return false
        }
        return true
    }

    func authorize(
        _ request: NameRequest, completion: @escaping (NameVerdict) -> Void
    ) -> DeadlinedOperation<NameVerdict> {
        DeadlinedOperation(
            loop: self.loop, milliseconds: Self.moduleDeadline,
            late: .refused(.overloaded, reason: "the authenticator did not answer in time"),
            start: { self.authenticator.authorize(request, completion: $0) },
            completion: self.metrics.timing(.name, completion))
    }

    /// Why an agent gets no further link, if so. A former link of the same program makes way.
    ///
    /// - Parameter most: links that the agent may have.
    func refusalForLink(of identity: AgentIdentity, run: UInt64, most: Int) -> Refusal? {
        guard !self.isDraining else { return Refusal(code: .drain, text: "the gateway stops") }
        let links = self.sessions.values.filter { $0.identity == identity && $0.connection.isOpen }
        let own = links.filter { $0.run == run }.sorted { $0.id < $1.id }
        let former = own.dropLast(Self.mostLinksPerRun - 1)
        guard links.count - own.count < most else {
            return Refusal(code: .tooManyLinks, text: "the agent has \(links.count) links already")
        }
        let agents = self.sessions.values.count(where: { $0.identity != nil && $0.connection.isOpen })
        guard agents - former.count < self.plan.agents else {
            return Refusal(code: .tooManyLinks, text: "the gateway has no room for more agents")
        }
        for session in former {
            // The program knows; words would only keep the connection longer.
            session.connection.close(.ended(.replaced, "the program has a newer link"))
        }
        return nil
    }
}

extension GatewayServer: SocketListenerDelegate {
    package func listener(_ listener: SocketListener, didAccept stream: SocketStream) {
        guard let peer = stream.peerAddress else {
            self.metrics.arrived(.gone)
            return stream.reset()
        }
        guard !self.bans.contains(peer) else {
            self.metrics.arrived(.banned)
            return stream.reset()
        }
        guard self.hasRoomForSession() else {
            self.metrics.arrived(.noRoom)
            return stream.reset()
        }
        let id = self.nextID
        self.nextID += 1
        let source = self.sources.source(of: peer, at: stream.localAddress)
        let isSourceFull = self.admission.isFull(of: source)
        switch self.admission.connected(id, from: source, now: self.loop.now) {
        case .admit: break
        case .admitInsteadOf(let other):
            self.metrics.hit(isSourceFull ? .strangersPerSource : .strangers)
            // Without a penalty: being slow among many connections is not an offence.
            self.sessions[other]?.connection.close(.ended(.tooManyLinks, "made room for a newer connection"))
        case .refuse(let milliseconds):
            self.metrics.arrived(.penalty)
            self.peerLog.write(
                .info, .strangers, of: .stranger(peer),
                "\(peer) is kept out for \(milliseconds / 1_000) s after what it did before", .about([.peer: peer]))
            return stream.reset()
        }
        self.metrics.arrived(.admitted)
        let version =
            self.doors.isVersion1(listener)
            ? LinkProtocol.version1 : .version2(self.certificate.context, serverName: nil)
        do throws(SecurityError) {
            let connection = try LinkConnection(
                socket: stream, version: version, role: .gateway, limits: self.linkLimits, budget: self.budget,
                buffers: self.buffers, software: GatewayServer.software, meter: self.metrics.relay)
            self.sessions[id] = AgentSession(
                id: id, connection: connection, peer: peer, source: source, gateway: self)
            connection.start()
        } catch {
            self.admission.left(id)
            self.peerLog.write(.error, .strangers, of: .stranger(peer), "\(peer): \(error)", .about([.peer: peer]))
            stream.close()
        }
    }

    /// Makes room, if need be, by cutting a connection that only waits for its last words to be read.
    private func hasRoomForSession() -> Bool {
        guard self.sessions.count >= self.plan.links else { return true }
        guard let last = self.sessions.values.first(where: { $0.connection.isLingering }) else { return false }
        last.connection.close(.ended(.tooManyLinks, "made room for a newer connection"))
        return true
    }

    package func listener(_ listener: SocketListener, didFail error: UVError) {
        self.peerLog.write(
            .info, .strangers, of: .unknownStrangers, "an agent could not be accepted: \(error)",
            .about([.error: error]))
    }
}
