internal import GatewayCore
internal import Journal
internal import Logging
internal import Modules
internal import Reactor
internal import Relay
internal import Secure
internal import Settings
internal import Timing
internal import Wire

// MARK: - Logins

extension AgentSessions {
    /// The minimum time from a login to its refusal.
    private static let refusalMilliseconds: Milliseconds = 250

    /// The agent sent its credentials.
    func loginArrived(_ session: AgentSession, _ credentials: Credentials) {
        guard !session.isEnding else { return }
        session.loginArrivedAt = self.parts.loop.now
        if case .version2(let login) = credentials, !Login.Method.known.contains(login.method) {
            let reason = "the login method \(login.method.rawValue) is not supported"
            return self.judged(
                session, .refused(.methodNotSupported, reason: reason), of: credentials, run: login.run, maxLinks: 0)
        }
        guard self.mayBeJudged(session) else { return self.refuseUnjudged(session) }
        let request = LoginRequest(
            peer: session.label.peer, isFromLoopback: session.isFromLoopback, credentials: credentials,
            certificatePin: session.certificatePin)
        // Version 1 has no run number, so each of its links counts as a run of its own.
        let run: UInt64
        let maxLinks: Int
        switch credentials {
        case .version2(let login):
            (run, maxLinks) = (login.run, self.parts.limits.linksPerAgent)
            session.takesNotes = login.takesNotes
        case .version1: (run, maxLinks) = (session.id, self.parts.limits.version1LinksPerAgent)
        }
        let operation = self.authenticate(request) { [weak self, weak session] verdict in
            guard let self, let session else { return }
            self.judged(session, verdict, of: credentials, run: run, maxLinks: maxLinks)
        }
        // A synchronous answer has changed the state already.
        if case .stranger = session.state { session.state = .authenticating(operation) }
    }

    private func authenticate(
        _ request: LoginRequest, completion: @escaping (LoginVerdict) -> Void
    ) -> any Cancellable {
        DeadlinedOperation(
            loop: self.parts.loop, milliseconds: moduleDeadline,
            late: .refused(.overloaded, reason: "the authenticator timed out"),
            start: { self.parts.authenticator.authenticate(request, completion: $0) },
            completion: self.parts.metrics.timing(.login, completion))
    }

    /// Whether the login may go to the authenticator now. If so, it counts for its source until the verdict.
    private func mayBeJudged(_ session: AgentSession) -> Bool {
        switch self.admission.loginArrived(session.id) {
        case .judge: return true
        case .judgeInsteadOf(let other):
            self.parts.metrics.hit(.logins)
            if let other = self.sessions[other], case .authenticating(let operation) = other.state {
                operation.cancel()
                self.refuseUnjudged(other)
            }
            return true
        case .refuse:
            self.parts.metrics.hit(.logins)
            return false
        }
    }

    /// Refuses a login because too many are waiting for the authenticator. No penalty: the agent may retry.
    private func refuseUnjudged(_ session: AgentSession) {
        let text = "too many logins are waiting for the authenticator"
        self.overloaded(session, "cannot authenticate the login from \(session.label.peer): \(text)", text: text)
    }

    private func overloaded(_ session: AgentSession, _ line: String, text: String) {
        session.state = .refused
        self.parts.metrics.loginRefused(.overloaded)
        self.parts.log.write(
            .warning, .strangers, by: session.label, line, session.label.about([.code: ErrorCode.overloaded]))
        self.end(session, .overloaded, retryAfterSeconds: 1, text: text)
    }

    private func judged(
        _ session: AgentSession, _ verdict: LoginVerdict, of credentials: Credentials, run: UInt64, maxLinks: Int
    ) {
        self.admission.left(session.id)
        guard !session.isEnding else { return }
        session.state = .refused
        switch verdict {
        case .granted(let grant): self.granted(session, grant, run: run, maxLinks: maxLinks)
        case .refused(.overloaded, let reason):
            self.overloaded(
                session, "cannot authenticate the login from \(session.label.peer): \(reason)",
                text: "the gateway cannot authenticate agents now")
        case .refused(let code, let reason):
            self.parts.metrics.loginRefused(code)
            self.parts.log.write(
                .warning, .strangers, by: session.label, "login from \(session.label.peer) refused: \(reason)",
                session.label.about([.code: code]))
            self.charge(session, credentials)
            let text =
                switch code {
                case .notLoopback:
                    "this gateway accepts only agents on its own machine; its operator can add others with 'diglett-server agent add'"
                case .methodNotSupported: "the gateway does not support the login method"
                default: "the login was refused"
                }
            self.refuse(session, code, text)
        }
    }

    private func granted(_ session: AgentSession, _ grant: LoginGrant, run: UInt64, maxLinks: Int) {
        let identity = AgentIdentity(id: grant.identity)
        let login = GatewayMachine.Login(
            identity: identity, payer: session.payer(of: grant), run: run, maxNames: grant.limits.names,
            // Version 1 cannot report whether the backend accepted a connection.
            canProbe: !session.isVersion1)
        if let refusal = self.parts.names.loggedIn(session.id, login, maxLinks: grant.limits.links ?? maxLinks) {
            self.parts.metrics.loginRefused(refusal.code)
            self.parts.log.write(
                .warning, .detail, of: .agent(identity.id),
                "link of \(identity) at \(session.label.peer) refused: \(refusal.text)",
                session.label.about([.agent: identity, .code: refusal.code]))
            return self.end(session, refusal.code, retryAfterSeconds: 5, text: refusal.text)
        }
        self.parts.metrics.loginAccepted()
        session.state = .up(grant)
        session.label.identity = identity
        let names = grant.limits.names ?? self.parts.limits.namesPerLink
        let welcome = Welcome(linkID: session.id, maximumNames: UInt16(clamping: names), session: Self.newKey())
        self.parts.send(.welcome(session.id, identity, self.allowance(grant.limits), welcome))
        self.parts.log.write(.info, .milestone, by: session.label, "\(session.label) logged in")
    }

    private static func newKey() -> SessionKey {
        SessionKey(
            id: SecureRandom.bytes(SessionKey.idSize), secret: SecureRandom.bytes(SessionKey.secretSize))
    }

    /// Adds the penalty for a refused login to its source.
    private func charge(_ session: AgentSession, _ credentials: Credentials) {
        let shown: [UInt8] =
            switch credentials {
            case .version1(let token): Array(token.utf8)
            case .version2(let login):
                switch login.method {
                case .token: Array(login.token.utf8)
                case .certificate: Array((session.certificatePin ?? "").utf8)
                default: login.instanceKey
                }
            }
        let hash = SHA256.hash(shown).prefix(8).reduce(0) { $0 << 8 | UInt64($1) }
        if self.admission.loginRefused(hash, from: session.source, now: self.parts.loop.now) {
            self.parts.metrics.hit(.penaltyTable)
        }
    }

    /// Refuses a login no earlier than `refusalMilliseconds` after it arrived. The delay hides how fast the
    /// authenticator decided, and slows down guessing.
    private func refuse(_ session: AgentSession, _ code: ErrorCode, _ text: String) {
        let spent = self.parts.loop.now - session.loginArrivedAt
        guard spent < Self.refusalMilliseconds else { return self.end(session, code, text: text) }
        let timer = LoopTimer(loop: self.parts.loop) { [unowned self, unowned session] in
            self.end(session, code, text: text)
        }
        timer.start(after: Self.refusalMilliseconds - spent)
        session.refusalTimer = timer
    }
}
