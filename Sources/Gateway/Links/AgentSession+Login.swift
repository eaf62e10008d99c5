internal import GatewayCore
internal import Journal
internal import Logging
internal import Modules
internal import Reactor
internal import Relay
internal import Settings
internal import Tunnel
internal import Wire

// MARK: - The login of an agent: who judges it, and the answer

extension AgentSession {
    /// From a login to the answer that refuses it, at least.
    private static let refusalMilliseconds: UInt64 = 250

    func loginArrived(_ credentials: Credentials) {
        self.loginArrivedAt = self.link.loop.now
        if case .version2(let login) = credentials, !Login.Method.known.contains(login.method) {
            let reason = "the login method \(login.method.rawValue) is not supported"
            return self.judged(
                .refused(.methodNotSupported, reason: reason), of: credentials, run: login.run, maxLinks: 0)
        }
        guard self.gateway.mayBeJudged(self) else { return self.refuseUnjudged() }
        let request = LoginRequest(
            peer: self.peer, isFromLoopback: self.isFromLoopback, credentials: credentials,
            certificatePin: self.certificatePin)
        // Version 1 has no run number, so each of its links counts as a run of its own.
        let run: UInt64
        let maxLinks: Int
        switch credentials {
        case .version2(let login): (run, maxLinks) = (login.run, self.gateway.settings.limits.linksPerAgent)
        case .version1: (run, maxLinks) = (self.id, self.gateway.settings.limits.version1LinksPerAgent)
        }
        let operation = self.gateway.authenticate(request) { [weak self] verdict in
            self?.judged(verdict, of: credentials, run: run, maxLinks: maxLinks)
        }
        // An answer that came at once has changed the state already.
        if case .stranger = self.state { self.state = .authenticating(operation) }
    }

    /// Gives up its login for that of a source with fewer.
    func makeRoomForLogin() {
        guard case .authenticating(let operation) = self.state else { return }
        operation.cancel()
        self.refuseUnjudged()
    }

    /// Refuses a login because too many wait for the authenticator. It costs no penalty: the agent may try again.
    private func refuseUnjudged() {
        self.state = .refused
        self.gateway.metrics.loginRefused(.overloaded)
        self.log(
            .warning, .strangers,
            "login from \(self.peer) cannot be judged: too many logins wait for the authenticator",
            self.about([.code: ErrorCode.overloaded]))
        self.link.end(
            .overloaded, retryAfterSeconds: 1, text: "too many logins wait for the authenticator")
    }

    private func judged(_ verdict: LoginVerdict, of credentials: Credentials, run: UInt64, maxLinks: Int) {
        self.gateway.loginJudged(self)
        guard self.link.isOpen else { return }
        self.state = .refused
        switch verdict {
        case .granted(let grant):
            let identity = AgentIdentity(id: grant.identity)
            let login = GatewayMachine.Login(
                identity: identity, payer: self.payer(of: grant), run: run, maxNames: grant.limits.names,
                canProbe: self.link.canProbe)
            if let refusal = self.gateway.names.loggedIn(self.id, login, maxLinks: grant.limits.links ?? maxLinks) {
                self.gateway.metrics.loginRefused(refusal.code)
                self.gateway.peerLog.write(
                    .warning, .detail, of: .agent(identity.id),
                    "link of \(identity) at \(self.peer) refused: \(refusal.text)",
                    self.about([.agent: identity, .code: refusal.code]))
                self.link.end(refusal.code, retryAfterSeconds: 5, text: refusal.text)
                return
            }
            self.gateway.metrics.loginAccepted()
            self.state = .up(grant)
            self.allow()
            let names = grant.limits.names ?? self.gateway.settings.limits.namesPerLink
            let welcome = Welcome(linkID: self.id, maximumNames: UInt16(clamping: names))
            self.link.acceptLogin(welcome)
            self.log(.info, .milestone, "\(self.label) logged in")
        case .refused(.overloaded, let reason):
            self.gateway.metrics.loginRefused(.overloaded)
            self.log(
                .warning, .strangers, "login from \(self.peer) cannot be judged: \(reason)",
                self.about([.code: ErrorCode.overloaded]))
            self.link.end(.overloaded, retryAfterSeconds: 1, text: "the login cannot be judged now")
        case .refused(let code, let reason):
            self.gateway.metrics.loginRefused(code)
            self.log(
                .warning, .strangers, "login from \(self.peer) refused: \(reason)", self.about([.code: code]))
            self.gateway.loginRefused(self, credentials, pin: self.certificatePin)
            let text =
                switch code {
                case .notLoopback:
                    "this gateway is open and takes agents from its own machine only; its operator can allow others"
                case .methodNotSupported: "the gateway does not support the login method"
                default: "the login was refused"
                }
            self.refuse(code, text)
        }
    }

    /// Answers a refused login after a time that is the same however soon the authenticator knew: strangers learn
    /// nothing from it, and wait for each guess.
    private func refuse(_ code: ErrorCode, _ text: String) {
        let spent = self.link.loop.now - self.loginArrivedAt
        guard spent < Self.refusalMilliseconds else { return self.link.end(code, text: text) }
        let timer = LoopTimer(loop: self.link.loop) { [unowned self] in self.link.end(code, text: text) }
        timer.start(after: Self.refusalMilliseconds - spent)
        self.refusalTimer = timer
    }
}
