internal import GatewayCore
internal import Journal
internal import Logging
internal import Reactor
internal import Relay
internal import Timing
internal import Wire

// MARK: - Links between two connections

extension AgentSessions {
    /// The link has lost its connection and waits for the next one. Its names and streams stay.
    func detached(_ session: AgentSession, _ end: LinkEnd) {
        guard !session.isEnding else { return }
        session.detachedSince = self.parts.loop.now
        self.admission.isAway(session.source)
        self.parts.metrics.linkDetached(end)
        self.parts.names.linkDetached(session.id)
        self.parts.log.write(
            .info, .milestone, by: session.label, "\(session.label) is not connected (\(end)); waiting for it")
    }

    /// The link continues on the connection of `greeter`.
    func resumed(_ session: AgentSession, on greeter: AgentSession) {
        let away = self.parts.loop.now - (session.detachedSince ?? self.parts.loop.now)
        // Before the link counts for its new source.
        self.expectNoMore(session)
        self.remove(greeter)
        (session.label.peer, session.label.proxy) = (greeter.label.peer, greeter.label.proxy)
        (session.source, session.isFromLoopback) = (greeter.source, greeter.isFromLoopback)
        self.parts.metrics.linkResumed()
        self.parts.names.linkResumed(session.id)
        self.parts.log.write(
            .info, .milestone, by: session.label,
            "\(session.label) is connected again after \(away / 1_000).\(away % 1_000 / 100) s")
    }

    /// The link has a connection again, or is over.
    func expectNoMore(_ session: AgentSession) {
        guard session.detachedSince != nil else { return }
        session.detachedSince = nil
        self.admission.isBack(session.source)
    }

    /// A connection tried to resume a link without knowing its secret.
    func notProven(_ session: AgentSession) {
        if self.admission.penalize(session.source, .badLogin, now: self.parts.loop.now) {
            self.parts.metrics.hit(.penaltyTable)
        }
        self.parts.log.write(
            .warning, .strangers, by: session.label,
            "\(session.label.peer) tried to resume a link of another program")
    }
}
