internal import GatewayCore
internal import Journal
internal import Logging
internal import Modules
internal import Reactor
internal import Relay
internal import Wire

// MARK: - What an agent may still have after a change of rights

extension AgentSession {
    /// Asks again whether the agent still has the right to be here, and how much it may have.
    func recheckLogin(_ authenticator: any Authenticator) {
        guard let grant = self.grant else { return }
        if let reason = authenticator.revocation(of: grant) {
            self.log(
                .warning, .complete, "\(self.label): the login is withdrawn: it \(reason)",
                self.about([.code: ErrorCode.revoked]))
            return self.gateway.names.revoked(self.id)
        }
        if let limits = authenticator.limits(of: grant) { self.setLimits(limits) }
    }

    /// Asks again whether the agent still has the right to a name, and does what follows.
    ///
    /// - Parameters:
    ///   - isFirst: whether a missing answer is logged.
    ///   - completion: called once, with false if the authenticator did not answer; the agent then keeps the name.
    func recheck(
        _ exposure: Exposure, of grant: LoginGrant, isFirst: Bool, completion: @escaping (_ isJudged: Bool) -> Void
    ) -> DeadlinedOperation<NameVerdict> {
        let port = exposure.address?.port ?? 0
        let request = NameRequest(identity: grant.identity, peer: self.peer, name: exposure.name, port: port)
        return self.gateway.names.authorize(request) { [weak self, weak exposure] verdict in
            guard let self, let exposure else { return completion(true) }
            guard self.exposures.contains(where: { $0 === exposure }) else {
                // If it has moved to another link, it still has to be checked there.
                return completion(exposure.session === self)
            }
            switch verdict {
            case .granted(let ports): self.gateway.names.confirmed(exposure, ports: ports)
            case .refused(.overloaded, let reason):
                if isFirst {
                    self.warn(
                        .detail, "'\(exposure.name)' stays until it is judged: \(reason)", exposure.name, .overloaded)
                }
                return completion(false)
            case .refused(let code, let reason):
                self.gateway.names.revoke(exposure, code == .portNotAllowed ? code : .revoked, reason: reason)
            }
            completion(true)
        }
    }
}

extension GatewayServer {
    /// Rights may have changed: asks about each link, each name and each agent's limits again.
    func recheckRights() {
        for session in self.sessions.values { session.recheckLogin(self.authenticator) }
        // Before limits: what goes anyway does not count.
        self.review.begin(self.openSessions.flatMap(\.exposures))
        let open = self.sessions.values.filter { $0.link.isOpen && $0.grant != nil }
        for sessions in Dictionary(grouping: open, by: { $0.grant?.identity }).values {
            guard let identity = sessions[0].identity,
                let limits = sessions[0].grant.flatMap({ self.authenticator.limits(of: $0) })
            else { continue }
            self.names.changed(identity, limits)
        }
    }
}
