internal import AgentCore
internal import Journal
internal import Logging
internal import Reactor
internal import Relay
internal import Settings
internal import Wire

// MARK: - Token rotation

extension AgentProgram {
    /// Waits for another token after the gateway refused one that comes from a file: when an operator rotates a token,
    /// the gateway has the new one before the file does.
    ///
    /// - Returns: false if waiting cannot help. The refusal then stops the agent.
    func awaitsToken(after refusal: GoAway) -> Bool {
        guard refusal.code == .loginRefused || refusal.code == .revoked, let file = self.login.file,
            !self.settings.once, !self.isDraining, !self.hasStopped
        else { return false }
        let reason = refusal.text.isEmpty ? "\(refusal.code)" : PeerText.escaped(refusal.text)
        self.links.leave("the login was refused")
        self.print(.lost(reason: reason))
        let copy = ServiceCredentials.contains(file) ? "; systemd copies it only when the service starts" : ""
        self.log.say(
            .warning, .milestone, "\(reason): waiting for a new token in \(file)\(copy)",
            self.log.about([.code: refusal.code]))
        self.machine.tokenRefused(now: self.loop.now)
        self.login.awaitAnother { [unowned self] isThere in
            guard !self.isDraining else { return }
            guard isThere else { return self.perform(self.machine.goAway(refusal, now: self.loop.now)) }
            self.log.say(.info, .milestone, "found a new token in \(file)")
            self.perform(self.machine.tokenChanged())
        }
        return true
    }
}
