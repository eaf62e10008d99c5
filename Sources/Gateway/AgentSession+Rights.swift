internal import Journal
internal import Logging
internal import Modules
internal import Reactor
internal import Registry
internal import Relay
internal import Wire

// MARK: - Requests that no right covers

extension AgentSession {
    /// Refuses a name as its agent has registered too many in a short time, by whatever links. It may ask again.
    func refuseHaste(of register: Register) {
        self.log(
            .warning, .detail,
            "\(self.label): name '\(PeerText.escaped(register.name, most: 64))' refused: too many registrations in a "
                + "short time",
            self.about([.code: ErrorCode.overloaded]))
        self.refuseName(register.exposure, .overloaded, text: "too many registrations in a short time")
    }

    /// Refuses a name of a kind that this gateway does not know, as that of a newer agent.
    func refuseKind(of register: Register) {
        let kind = register.kind.rawValue
        self.log(
            .warning, .detail, "\(self.label): a name of kind \(kind) refused: the kind is not supported",
            self.about([.code: ErrorCode.kindNotSupported]))
        self.refuseName(
            register.exposure, .kindNotSupported, text: "the gateway does not support names of kind \(kind)")
    }
}

// MARK: - What an agent may still have after a change of rights

extension AgentSession {
    /// Asks again whether the agent still has the right to be here, and how much it may have.
    func recheckLogin(_ authenticator: any Authenticator) {
        guard let grant = self.grant else { return }
        if let reason = authenticator.revocation(of: grant) {
            self.log(
                .warning, .milestone, "\(self.label): the login is withdrawn: it \(reason)",
                self.about([.code: ErrorCode.revoked]))
            // At once, whether the agent reads its goodbye or not.
            self.dropAll()
            return self.connection.end(.revoked, text: "the right to be here was withdrawn")
        }
        if let limits = authenticator.limits(of: grant) { self.setLimits(limits) }
    }

    /// Asks again whether the agent still has the right to a name, and does what follows.
    ///
    /// - Parameters:
    ///   - isFirst: whether the log shall tell if there is no answer.
    ///   - completion: called once; false if there was no answer, which decides nothing.
    func recheck(
        _ exposure: Exposure, of grant: LoginGrant, isFirst: Bool, completion: @escaping (_ isJudged: Bool) -> Void
    ) -> DeadlinedOperation<NameVerdict> {
        let port = exposure.address?.port ?? 0
        let request = NameRequest(identity: grant.identity, peer: self.peer, name: exposure.name, port: port)
        return self.gateway.authorize(request) { [weak self, weak exposure] verdict in
            guard let self, let exposure else { return completion(true) }
            guard self.exposures.contains(where: { $0 === exposure }) else {
                // One that has moved to another link meanwhile has not been judged there.
                return completion(exposure.session === self)
            }
            switch verdict {
            case .granted(let ports):
                if port != 0, !ports.isEmpty, !ports.contains(where: { $0.contains(port) }) {
                    self.lose(exposure, .portNotAllowed, "it may not have the port \(port) any more")
                }
            case .refused(.overloaded, let reason):
                if isFirst {
                    self.warn(
                        .detail, "'\(exposure.name)' stays until it is judged: \(reason)", exposure.name, .overloaded)
                }
                return completion(false)
            case .refused(let code, let reason):
                self.lose(exposure, code == .portNotAllowed ? code : .revoked, reason)
            }
            completion(true)
        }
    }

    /// Takes a name and its streams from the agent.
    ///
    /// - Parameters:
    ///   - code: what the agent hears.
    ///   - reason: for the log.
    private func lose(_ exposure: Exposure, _ code: ErrorCode, _ reason: String) {
        self.warn(.milestone, "the right to '\(exposure.name)' is gone: \(reason)", exposure.name, code)
        let text =
            switch code {
            case .portNotAllowed: "the right to the port was withdrawn"
            case .tooManyNames: "the agent may have fewer names now"
            default: "the right to the name was withdrawn"
            }
        let number = exposure.number
        self.answer(number, code, text: text)
        self.drop(exposure)
        self.connection.abortStreams(of: number, .revoked)
    }

    private func dropAll() {
        let exposures = self.exposures
        for exposure in exposures { self.drop(exposure) }
    }

    /// Ends what the agents of one identity have above its limits, the newest first. Streams that run are left: there
    /// will be no new ones above the limit.
    static func enforce(_ limits: AgentLimits, on sessions: [AgentSession]) {
        var sessions = sessions.sorted { $0.id < $1.id }
        if let most = limits.links {
            // A program's present link and its former one count as one (`refusalForLink`).
            var runs: Set<UInt64?> = []
            for session in sessions where runs.count < most { runs.insert(session.run) }
            for session in sessions where !runs.contains(session.run) {
                session.log(
                    .warning, .milestone,
                    "\(session.label): the link is ended, as its agent may have at most \(most) now",
                    session.about([.code: ErrorCode.tooManyLinks]))
                session.dropAll()
                session.connection.end(
                    .tooManyLinks, retryAfterSeconds: 5, text: "the agent may have fewer links now")
            }
            sessions.removeAll { !runs.contains($0.run) }
        }
        guard let most = limits.names else { return }
        let names = sessions.flatMap { session in session.exposures.map { (session: session, exposure: $0) } }
            .sorted {
                ($0.exposure.since, $0.session.id, $0.exposure.number) < (
                    $1.exposure.since, $1.session.id, $1.exposure.number
                )
            }
        for (session, exposure) in names.dropFirst(most) {
            session.lose(exposure, .tooManyNames, "its agent may have at most \(most) names now")
        }
    }
}

extension GatewayServer {
    /// Rights may have changed: asks about each link, each name and each agent's limits again.
    func recheckRights() {
        for session in self.sessions.values { session.recheckLogin(self.authenticator) }
        // Before limits: what goes anyway does not count.
        self.review.begin(self.openSessions.flatMap(\.exposures))
        let open = self.sessions.values.filter { $0.connection.isOpen && $0.grant != nil }
        for sessions in Dictionary(grouping: open, by: { $0.grant?.identity }).values {
            guard let limits = sessions[0].grant.flatMap({ self.authenticator.limits(of: $0) }) else { continue }
            AgentSession.enforce(limits, on: sessions)
        }
    }
}
