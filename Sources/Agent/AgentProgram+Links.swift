internal import AgentCore
internal import Journal
internal import Logging
internal import Reactor
internal import Relay
internal import Secure
internal import Settings
internal import Tunnel
internal import Wire

// MARK: - What links report

extension AgentProgram: GatewaySessionOwner {
    func session(_ session: GatewaySession, judge peer: ChannelPeer) -> PeerVerdict {
        let gateway = self.settings.gateway.description
        if let race = self.race {
            self.race = nil
            let others = race.won(session)
            self.session = session
            self.silentAddresses = Set(others.compactMap(\.address))
            self.leave(others, "another address of the gateway was faster")
        }
        if self.settings.version1 {
            self.say(.debug, .milestone, "connected to \(gateway), version 1")
            self.print(.connected(gateway: gateway, pin: nil))
            return .proceed(self.login.next())
        }
        guard let pin = peer.pin?.description else { return .refuse(SecurityError("the gateway shows no certificate")) }
        let isLoopback = session.link.transport.peerAddress?.isLoopback ?? false
        if let refusal = self.keys.refusal(of: pin, peer.system, isLoopback: isLoopback) {
            self.keyRefusal = refusal
            return .refuse(SecurityError(refusal.text))
        }
        self.say(.debug, .milestone, "connected to \(gateway), \(pin)")
        self.print(.connected(gateway: gateway, pin: pin))
        return .proceed(self.login.next())
    }

    func session(_ session: GatewaySession, welcomed welcome: Welcome) {
        guard session === self.session else { return }
        self.hasReportedSilence = false
        if let bytes = self.segment.linkBegan() {
            self.logger.warning(
                """
                large packets seem to be lost between here and \(self.settings.gateway), small ones pass: links use \
                segments of \(bytes) bytes from now on; to do so from the start, set 'link-mss = \(bytes)'
                """)
        }
        for action in self.machine.welcomed(welcome, now: self.loop.now) { self.perform(action) }
    }

    func session(_ session: GatewaySession, registered answer: Registered) {
        guard session === self.session else { return }
        self.perform(self.machine.registered(answer, now: self.loop.now))
    }

    func session(_ session: GatewaySession, goAway: GoAway) {
        guard session === self.session else { return }
        var goAway = goAway
        if goAway.code == .loginRefused, self.login.last.method == .instance {
            goAway.text += ", and no token was given: use -t, --token-file or DIGLETT_TOKEN"
        }
        if self.awaitsToken(after: goAway, of: session) { return }
        let action = self.machine.goAway(goAway, now: self.loop.now)
        if action != .none { return self.perform(action) }
        // With `once` the program exits when this link ends.
        guard goAway.code == .drain, !self.isDraining, !self.hasStopped, !self.settings.once,
            session.link.phase == .draining
        else { return }
        // The streams of this link finish while the next one is made.
        self.leaving.append(session)
        self.session = nil
        self.lost(goAway.text.isEmpty ? "\(goAway.code)" : PeerText.escaped(goAway.text))
    }

    /// - Parameter line: for the log; nil for one of the reason.
    func lost(_ reason: String, line: String? = nil) {
        guard !self.hasStopped else { return }
        if self.isDraining { return self.loop.atTurnEnd(self) }
        self.print(.lost(reason: reason))
        let text = line ?? "the link to \(self.settings.gateway) is lost: \(reason)"
        let action = self.machine.linkEnded(text, now: self.loop.now, random: SecureRandom.integer())
        self.retry(action, after: text)
    }

    func session(_ session: GatewaySession, backendOf exposure: UInt16) -> Backend? {
        self.machine.wish(of: exposure).flatMap { self.backends[$0.name] }
    }

    private func name(_ exposure: UInt16) -> String { self.machine.wish(of: exposure)?.name.text ?? "?" }

    func session(_ session: GatewaySession, opened open: Open) {
        guard self.settings.debug > 0 else { return }
        self.streamLog.opened(self.name(open.exposure), open.visitor)
        self.print(.stream(name: self.name(open.exposure), visitor: open.visitor.description))
    }

    func session(_ session: GatewaySession, backendOf open: Open, failed error: UVError) {
        guard let backend = self.session(session, backendOf: open.exposure) else { return }
        self.streamLog.backendFailed(self.name(open.exposure), open.visitor, backend.endpoint, error)
    }

    func session(_ session: GatewaySession, streamEnded edge: Edge, _ end: StreamEnd) {
        self.streamLog.ended(
            edge, end, self.name(edge.exposure), self.session(session, backendOf: edge.exposure)?.endpoint,
            link: session.link.ending)
        // Not from inside the session's own work.
        if self.isDraining { self.loop.atTurnEnd(self) }
    }

    func sessionEnded(_ session: GatewaySession, _ end: LinkEnd) {
        self.delivering.append(session)
        if !session.isSecured, let address = session.address { self.silentAddresses.insert(address) }
        if let race = self.race, race.sessions.contains(where: { $0 === session }) {
            race.ended(session, end)
        } else if session === self.session {
            self.segment.linkEnded(session.link.transport.advisedSegment)
            self.session = nil
            if let refusal = self.keyRefusal {
                guard let reason = refusal.reason else { return self.lost(refusal.text, line: refusal.text) }
                self.perform(self.machine.keyRefused(refusal.text, reason: reason))
            } else {
                if case .violation(let violation) = end, violation.code == .version {
                    let goodbye = GoAway(code: .version, text: violation.detail)
                    self.perform(self.machine.goAway(goodbye, now: self.loop.now))
                }
                self.lost(end.description)
            }
        } else {
            self.leaving.removeAll { $0 === session }
        }
    }

    func sessionEmptied(_ session: GatewaySession) {
        self.delivering.removeAll { $0 === session }
        self.closeIfQuiet()
    }
}
