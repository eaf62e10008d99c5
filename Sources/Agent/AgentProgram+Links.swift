internal import AgentCore
internal import Journal
internal import Logging
internal import Reactor
internal import Relay
internal import Secure
internal import Settings
internal import Supervision
internal import Tunnel
internal import Wire

// MARK: - Events of links

extension AgentProgram: AgentLinksOwner {
    func connected() { self.machine.connected() }

    func judge(_ peer: ChannelPeer, isLoopback: Bool) -> PeerVerdict {
        let gateway = self.settings.gateway.description
        if self.settings.version1 {
            self.log.say(.debug, .milestone, "connected to \(gateway), version 1")
            self.print(.connected(gateway: gateway, pin: nil))
            return .proceed(self.login.next())
        }
        guard let pin = peer.pin?.description else { return .refuse(SecurityError("the gateway sent no certificate")) }
        if let refusal = self.keys.refusal(of: pin, peer.system, isLoopback: isLoopback) {
            self.keyRefusal = refusal
            return .refuse(SecurityError(refusal.text))
        }
        self.log.say(.debug, .milestone, "connected to \(gateway), \(pin)")
        self.print(.connected(gateway: gateway, pin: pin))
        return .proceed(self.login.next())
    }

    func welcomed(_ welcome: Welcome) { self.perform(self.machine.welcomed(welcome, now: self.loop.now)) }

    func registered(_ answer: Registered) { self.perform(self.machine.registered(answer, now: self.loop.now)) }

    func goAway(_ goAway: GoAway) {
        var goAway = goAway
        if goAway.code == .loginRefused, self.login.last.method == .token, !self.login.looksLikeToken {
            goAway.text += ": the token is not a complete token of 'agent add' (dgl_NAME_...)"
        }
        if goAway.code == .loginRefused, self.login.last.method == .instance {
            goAway.text += ": no token was given: pass --token-file FILE, -t TOKEN or DIGLETT_TOKEN"
        }
        if self.awaitsToken(after: goAway) { return }
        let action = self.machine.goAway(goAway, now: self.loop.now)
        if action != .none { return self.perform(action) }
        // With `once` the program exits when this link ends.
        guard goAway.code == .drain, !self.isDraining, !self.hasStopped, !self.settings.once, self.links.isDraining
        else { return }
        // The streams of this link finish while the next one is made.
        self.links.leave()
        self.lost(goAway.text.isEmpty ? "\(goAway.code)" : PeerText.escaped(goAway.text))
    }

    func detached(_ end: LinkEnd, window: UInt64) {
        guard !self.hasStopped, !self.isDraining else { return }
        let streams = self.streamCount
        self.print(.interrupted(reason: end.description))
        self.retry(
            self.machine.linkDetached(window: window, now: self.loop.now, random: SecureRandom.integer()),
            after: "the connection to \(self.settings.gateway) broke: \(end)"
                + (streams > 0 ? "; \(counted(streams, "stream")) waiting" : ""))
    }

    func stuck(window: UInt64) {
        guard !self.hasStopped, !self.isDraining else { return }
        self.log.say(
            .notice, .milestone, "\(self.settings.gateway) does not answer; trying another connection")
        self.perform(self.machine.linkStuck(window: window, now: self.loop.now))
    }

    func moves() {
        self.log.say(.info, .milestone, "\(self.settings.gateway) answers again")
        self.perform(self.machine.linkMoves(now: self.loop.now))
    }

    /// This machine's addresses or routes have changed, or it was suspended.
    func networkChanged() {
        guard !self.hasStopped, !self.isDraining else { return }
        self.links.networkChanged()
        self.perform(self.machine.networkChanged(now: self.loop.now))
    }

    func resumed(after away: UInt64) {
        let streams = self.streamCount
        self.log.say(
            .info, .milestone,
            "connected to \(self.settings.gateway) again after \(Self.seconds(away))"
                + (streams > 0 ? "; \(counted(streams, "stream")) kept" : ""))
        self.print(.resumed(seconds: Double(away) / 1_000))
        self.perform(self.machine.resumed(now: self.loop.now))
    }

    func forgotten(_ end: LinkEnd) {
        guard !self.hasStopped, !self.isDraining else { return }
        self.machine.linkForgotten()
        let text = "the link to \(self.settings.gateway) is lost: \(end)"
        self.log.say(.warning, .milestone, text)
        self.print(.lost(reason: end.description))
    }

    func lost(_ end: LinkEnd) {
        if self.stopsAgent(end) { return }
        self.lost(self.keyRefusal?.text ?? end.description, line: self.keyRefusal?.text)
    }

    func successorFailed(_ end: LinkEnd) {
        guard !self.hasStopped, !self.isDraining, !self.stopsAgent(end) else { return }
        let text = self.keyRefusal?.text ?? "cannot connect to \(self.settings.gateway) again: \(end)"
        self.retry(self.machine.linkEnded(text, now: self.loop.now, random: SecureRandom.integer()), after: text)
    }

    /// Stops the agent if retrying cannot help.
    private func stopsAgent(_ end: LinkEnd) -> Bool {
        if let refusal = self.keyRefusal, let reason = refusal.reason {
            self.perform(self.machine.keyRefused(refusal.text, reason: reason))
            return true
        }
        if case .violation(let violation) = end, violation.code == .version {
            let goodbye = GoAway(code: .version, text: violation.detail)
            self.perform(self.machine.goAway(goodbye, now: self.loop.now))
            return true
        }
        return false
    }

    func dialFailed(_ failure: LinkRace.Failure) {
        let gateway = self.settings.gateway
        let text: String
        switch failure {
        case .ended(let end):
            text = "no link to the gateway \(gateway): \(DialAdvice.text(end, gateway))"
            // A link that waits for its next connection is not lost by an attempt that failed.
            guard self.links.hasLink else { return self.lost(end.description, line: text) }
        case .unreachable(let error): text = "cannot reach the gateway \(gateway): \(DialAdvice.text(error))"
        case .unusable(let error): text = "\(error)"
        }
        self.retry(self.machine.dialFailed(text, now: self.loop.now, random: SecureRandom.integer()), after: text)
    }

    /// Closes everything that keeps the loop alive after the last link is gone. Until then ticks end the lingering.
    func calmed() {
        guard self.hasStopped, self.links.isEmpty else { return }
        self.housekeeping.close()
        self.timer?.close()
        self.timer = nil
        self.printer.flush()
        // A pending name resolution would keep the loop running.
        self.loop.stop()
    }
}
