internal import Bytes
package import Timing
package import Wire

/// What makes a link a session: it continues on another connection when its own breaks.
struct Session {
    let key: SessionKey
    /// How long it waits for a carrier: the smaller value of both sides.
    let window: Milliseconds
    /// The epoch of the last RESUME: sent at the agent, accepted at the gateway.
    var epoch: UInt32 = 0
    /// Since when it has no carrier; nil while it has one.
    var detachedAt: Milliseconds?
    /// The next broken connection ends the session.
    var isLast = false
}

// MARK: - Sessions and carriers

extension Link {
    package var canResume: Bool { self.session.map { !$0.isLast } ?? false && self.phase.isPastLogin }

    package var sessionKey: SessionKey? { self.session?.key }

    package var resumeWindow: Milliseconds { self.session?.window ?? 0 }

    var isDetached: Bool { self.session?.detachedAt != nil }

    /// The login has succeeded. Begins a session if both sides can resume it.
    ///
    /// - Returns: the key to announce.
    mutating func begin(_ key: SessionKey?) -> SessionKey? {
        guard let key, let peer = self.peer, let keeps = peer.keeps, self.limits.resumeWindow > 0 else { return nil }
        let theirs = peer.resumeWindow.map { Milliseconds($0) * 1_000 } ?? self.limits.resumeWindow
        guard theirs > 0 else { return nil }
        self.session = Session(key: key, window: min(theirs, self.limits.resumeWindow))
        self.outbox.keeps = true
        // The peer stops sending when it keeps too much, so an ACK must not wait for more bytes than it keeps.
        self.acknowledgements = Acknowledgements(interval: min(self.limits.acknowledgedBytes, Int(keeps / 4)))
        return key
    }

    package mutating func forbidResuming() { self.session?.isLast = true }

    /// The time of what happens to streams: it stands still without a carrier.
    func streamTime(_ now: Milliseconds) -> Milliseconds { self.session?.detachedAt ?? now }

    package mutating func detach(now: Milliseconds) {
        guard self.session != nil, !self.isDetached else { return }
        self.session?.detachedAt = now
        self.urgent.removeAll()
        self.ping = nil
        self.deadline = nil
        self.isCongested = true
    }

    package mutating func nextResume() -> Resume {
        guard let session = self.session else { preconditionFailure("a link without a session") }
        precondition(session.detachedAt != nil, "resuming beside a carrier")
        self.session?.epoch += 1
        return Resume(
            sessionID: session.key.id, epoch: session.epoch + 1, handled: self.acknowledgements.report())
    }

    package mutating func resume(_ resumed: Resumed, now: Milliseconds) throws(PeerViolation) {
        guard resumed.epoch == self.session?.epoch else { throw .protocol("RESUMED for another attempt") }
        try self.attach(handled: resumed.handled, now: now)
        self.sendPing(now: now)
    }

    package mutating func judge(_ resume: Resume, now: Milliseconds) -> ResumeVerdict {
        guard let session = self.session, self.phase.isPastLogin, resume.epoch > session.epoch else { return .replaced }
        self.session?.epoch = resume.epoch
        self.detach(now: now)
        do throws(PeerViolation) { try self.attach(handled: resume.handled, now: now) } catch {
            return .violation(error)
        }
        Resumed(code: .none, epoch: resume.epoch, handled: self.acknowledgements.report()).encode(into: &self.urgent)
        self.sendPing(now: now)
        return .resumed
    }

    package mutating func request(_ resume: Resume) {
        guard self.phase == .awaitingWelcome else { return }
        resume.encode(into: &self.urgent)
        self.phase = .awaitingResumed
    }

    package mutating func refuseResume(_ resume: Resume) {
        guard self.phase == .awaitingLogin else { return }
        Resumed(code: .sessionGone, epoch: resume.epoch, handled: 0).encode(into: &self.urgent)
    }

    /// A new carrier. The peer has handled our frames up to `handled`; what follows is sent again.
    private mutating func attach(handled: UInt64, now: Milliseconds) throws(PeerViolation) {
        guard handled >= self.outbox.acknowledged, handled <= self.outbox.highest else {
            throw .protocol("a session resumed at \(handled), sent up to \(self.outbox.highest)")
        }
        self.hits.resentBytes += Int(self.outbox.highest - handled)
        self.outbox.rewind(to: handled)
        self.chargeKept()
        self.keepBound.begin(handled, now: now)
        let away = now - (self.session?.detachedAt ?? now)
        self.session?.detachedAt = nil
        for slot in 0..<self.streams.slotLimit where self.streams.isLive(slot) { self.streams[slot].postpone(by: away) }
        self.isCongested = false
        self.lastReceived = now
        self.lastOutputProgress = now
        self.lastPingReceived = nil
        self.unacknowledgedSince = now
        self.carrierPings = (0, 0)
        self.hasMeasured = false
        self.exemptControl = min(self.control.count, self.limits.owedControl)
    }

    /// When the present carrier counts as stuck; nil if the peer owes nothing on it. A link that is slow but moves is
    /// never stuck.
    package var stuckAt: Milliseconds? {
        guard self.session != nil, !self.isDetached, self.phase.isPastLogin else { return nil }
        let patience = max(4 * self.roundTrip, self.limits.stuckAfter)
        let byBytes = self.outbox.inFlight > 0 ? self.unacknowledgedSince + patience : nil
        let byPing = self.ping.map { ping in
            max(ping.sentAt + max(4 * self.roundTrip, self.limits.stuckAfterPing), self.lastReceived + patience)
        }
        guard let byBytes, let byPing else { return byBytes ?? byPing }
        return min(byBytes, byPing)
    }

    package mutating func probe(now: Milliseconds) {
        guard self.session != nil, !self.isDetached, self.phase.isPastLogin, self.ping == nil,
            now - self.lastPingSent >= self.limits.pingAfterTraffic
        else { return }
        self.sendPing(now: now)
    }

    // MARK: - Acknowledgements

    package var owesAcknowledgement: Bool { self.session != nil && !self.isDetached && self.acknowledgements.isOwed }

    package mutating func acknowledge() { self.acknowledgements.request() }

    var isAcknowledgementDue: Bool { self.owesAcknowledgement && self.acknowledgements.isDue }

    mutating func queueAcknowledgement() {
        guard self.owesAcknowledgement, self.phase != .closed,
            self.acknowledgements.isDue || (self.outboxCount > 0 && self.acknowledgements.isWorthwhile)
        else { return }
        NumberFrame.encode(.ack, self.acknowledgements.report(), into: &self.urgent)
    }

    mutating func receivedAck(_ handled: UInt64, now: Milliseconds) throws(PeerViolation) {
        guard self.session != nil else { throw .protocol("ACK without a session") }
        guard handled >= self.outbox.acknowledged, handled <= self.outbox.position else {
            throw .protocol("ACK of \(handled), sent up to \(self.outbox.position)")
        }
        guard handled > self.outbox.acknowledged else { return try self.glitch(now: now) }
        self.outbox.acknowledge(handled)
        self.chargeKept()
        self.lastOutputProgress = now
        self.unacknowledgedSince = now
        self.keepBound.acknowledged(
            handled, roundTrip: self.roundTrip, available: self.budget.isPlentiful ? self.budget.available : 0, now: now
        )
    }

    // MARK: - Kept bytes

    /// Bytes that may be added to the outbox. At 0 the link counts as congested.
    var keepRoom: Int { self.outbox.keeps ? max(0, self.keepBound.bytes - self.outbox.kept) : .max / 2 }

    /// The same for control frames. The last ones of a link always fit.
    var controlRoom: Int {
        guard self.outbox.keeps, self.phase != .closed else { return .max / 2 }
        return max(0, self.keepBound.bytes + self.limits.keptForControl - self.outbox.kept)
    }

    /// Charges the budgets for what is kept.
    mutating func chargeKept() { self.keptShare.set(self.outbox.keeps ? self.outbox.memory : 0) }

    package var keptBytes: Int { self.outbox.keeps ? self.outbox.memory : 0 }

    /// The connection is gone and the link cannot be resumed.
    mutating func dropKept() {
        self.outbox.dropAll()
        self.chargeKept()
    }
}
