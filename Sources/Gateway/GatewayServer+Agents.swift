internal import Admission
internal import Journal
internal import Logging
internal import Modules
internal import Reactor
internal import Registry
internal import Relay
internal import Secure
internal import Settings
internal import Tunnel
internal import Wire

/// Agents and their links: logins, names.
extension GatewayServer {
    /// Links of one program: its present one, and one that does not know yet that it is dead.
    static let mostLinksPerRun = 2

    func authenticate(
        _ request: LoginRequest, completion: @escaping (LoginVerdict) -> Void
    ) -> any Cancellable {
        DeadlinedOperation(
            loop: self.loop, milliseconds: moduleDeadline,
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
            loop: self.loop, milliseconds: moduleDeadline,
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
