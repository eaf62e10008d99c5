internal import GatewayCore
internal import Journal
internal import Logging
internal import Modules
internal import Reactor
internal import Wire

// MARK: - Changed rights

extension AgentSessions {
    /// Checks every link, every name and every agent's limits again, after rights may have changed.
    func recheckRights() {
        for session in self.openSessions { self.recheckLogin(session) }
        // Before the limits: what is revoked anyway must not count.
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

    /// Ends the link if its login was revoked; otherwise applies the agent's current limits.
    private func recheckLogin(_ session: AgentSession) {
        guard let grant = session.grant else { return }
        if let revocation = self.parts.authenticator.revocation(of: grant) {
            self.parts.log.write(
                .warning, .complete, by: session.label, "\(session.label): access revoked: it \(revocation.reason)",
                session.label.about([.code: ErrorCode.revoked]))
            return self.parts.names.revoked(session.id, revocation.told)
        }
        guard let limits = self.parts.authenticator.limits(of: grant) else { return }
        session.state = .up(grant.with(limits))
        self.parts.send(.allow(session.id, self.allowance(limits)))
    }

    /// Asks the authenticator again about a name, and applies the answer.
    ///
    /// - Parameters:
    ///   - isFirst: whether a missing answer is logged.
    ///   - completion: called once; false without an answer. The agent then keeps the name, which is checked again
    ///     later.
    /// - Returns: nil if the name or its link is gone.
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
            // Moved to another link during the request: check it again there.
            guard now.link == held.link else { return completion(false) }
            switch verdict {
            case .granted(let ports): names.confirmed(id, ports: ports)
            case .refused(.overloaded, let reason, _):
                if isFirst {
                    self.parts.log.write(
                        .warning, .detail, by: session.label,
                        "\(session.label): '\(held.name)' stays until the authenticator answers: \(reason)",
                        session.label.about([.name: held.name, .code: ErrorCode.overloaded]))
                }
                return completion(false)
            case .refused(let code, let reason, _):
                names.revoke(id, code == .portNotAllowed ? code : .revoked, reason: reason)
            }
            completion(true)
        }
    }
}
