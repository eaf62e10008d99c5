internal import GatewayCore
internal import Journal
internal import Logging
internal import Modules
internal import Reactor
internal import Wire

// MARK: - What agents may still have after a change of rights

extension AgentSessions {
    /// Rights may have changed: asks about each link, each name and each agent's limits again.
    func recheckRights() {
        for session in self.openSessions { self.recheckLogin(session) }
        // Before limits: what goes anyway does not count.
        let names = self.parts.names
        self.review.begin(names.held.filter { self[$0.link]?.isOpen ?? false }.map(\.id)) {
            [weak self] id, isFirst, completion in
            self?.recheck(id, isFirst: isFirst, completion: completion)
        }
        for sessions in Dictionary(grouping: self.openSessions, by: { $0.grant?.identity }).values {
            guard let identity = sessions[0].label.identity,
                let limits = sessions[0].grant.flatMap({ self.parts.authenticator.limits(of: $0) })
            else { continue }
            names.changed(identity, limits)
        }
    }

    /// Asks again whether the agent still has the right to be here, and how much it may have.
    private func recheckLogin(_ session: AgentSession) {
        guard let grant = session.grant else { return }
        if let reason = self.parts.authenticator.revocation(of: grant) {
            self.parts.log.write(
                .warning, .complete, by: session.label, "\(session.label): access revoked: it \(reason)",
                session.label.about([.code: ErrorCode.revoked]))
            return self.parts.names.revoked(session.id)
        }
        guard let limits = self.parts.authenticator.limits(of: grant) else { return }
        session.state = .up(grant.with(limits))
        self.parts.send(.allow(session.id, self.allowance(limits)))
    }

    /// Asks again whether the agent still has the right to a name, and does what follows.
    ///
    /// - Parameters:
    ///   - isFirst: whether a missing answer is logged.
    ///   - completion: called once, with false if the authenticator did not answer; the agent then keeps the name.
    /// - Returns: nil when the name is gone, and its agent with it.
    private func recheck(
        _ id: ExposureID, isFirst: Bool, completion: @escaping (_ isJudged: Bool) -> Void
    ) -> DeadlinedOperation<NameVerdict>? {
        let names = self.parts.names
        guard let held = names[id], let session = self.sessions[held.link], let grant = session.grant else {
            return nil
        }
        let request = NameRequest(
            identity: grant.identity, peer: session.label.peer, name: held.name, port: held.address?.port ?? 0)
        return names.authorize(request) { [weak self] verdict in
            guard let self, let now = names[id] else { return completion(true) }
            // If it has moved to another link, it still has to be checked there.
            guard now.link == held.link else { return completion(false) }
            switch verdict {
            case .granted(let ports): names.confirmed(id, ports: ports)
            case .refused(.overloaded, let reason):
                if isFirst {
                    self.parts.log.write(
                        .warning, .detail, by: session.label,
                        "\(session.label): '\(held.name)' stays until the authenticator answers: \(reason)",
                        session.label.about([.name: held.name, .code: ErrorCode.overloaded]))
                }
                return completion(false)
            case .refused(let code, let reason):
                names.revoke(id, code == .portNotAllowed ? code : .revoked, reason: reason)
            }
            completion(true)
        }
    }
}
