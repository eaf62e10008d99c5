internal import Bytes
package import Timing
internal import Wire

// MARK: - The clock

extension Link {
    package mutating func tick(now: Milliseconds, expired: inout [(StreamKey, StreamExpiry)]) -> LinkTick {
        guard self.phase != .closed else { return .none }
        if let detached = self.session?.detachedAt {
            // The deadlines of streams wait for the next carrier.
            return now - detached >= self.resumeWindow ? .expired : .none
        }
        if self.isCongested && now - self.lastOutputProgress >= self.limits.outputStalled
            || self.keepRoom == 0 && now - self.unacknowledgedSince >= self.limits.outputStalled
        {
            return self.endCarrier(.stalled, "the peer accepts no bytes")
        }
        guard self.phase.isPastLogin else {
            let deadline: Milliseconds
            switch self.phase {
            // The authenticator has its own deadline, and a slow one is not the agent's fault.
            case .authenticating: return .none
            case .awaitingWelcome: deadline = self.limits.welcomeDeadline
            default: deadline = self.limits.loginDeadline
            }
            guard now - self.createdAt >= deadline else { return .none }
            return self.end(.handshakeTimeout, "the login took too long")
        }
        if let deadline = self.deadline, now >= deadline {
            return self.endCarrier(.dead, "no answer after the machine slept")
        }
        let silence = now - self.lastReceived
        if silence >= self.limits.deadAfter { return self.endCarrier(.dead, "no data for \(silence / 1_000) s") }
        if self.ping == nil, self.isPingDue(after: silence, now: now) { self.sendPing(now: now) }
        for slot in 0..<self.streams.slotLimit where self.streams.isLive(slot) {
            let key = StreamKey(slot: slot, id: self.streams[slot].id)
            if case .resetting(let code, _) = self.streams[slot].send {
                if self.isResetStalled(slot, now: now) {
                    self.hits.resetsGivenUp += 1
                    self.cut(key, code)
                }
                continue
            }
            self.releaseQueue(slot)
            // Only bytes written to the edge count here, not what its peer acknowledges: a reader of a few bytes a
            // second needs no window.
            if self.streams[slot].receiveCredit.pending > 0,
                now - self.streams[slot].lastActivity >= self.limits.parkedAfter
            {
                self.streams[slot].receiveCredit.park(budget: self.budget)
            }
            guard let code = self.expiry(slot, now: now) else { continue }
            self.cut(key, code)
            expired.append((key, .reset(code)))
        }
        self.releaseIdleStorage()
        return .none
    }

    package mutating func stalledSince(_ key: StreamKey) -> Milliseconds? {
        guard self.streams.contains(key), !self.streams[key.slot].isReset else { return nil }
        return self.streams[key.slot].stalledSince
    }

    package mutating func stalledStreams(
        before: Milliseconds, into stalled: inout [(StreamKey, since: Milliseconds)]
    ) {
        for slot in 0..<self.streams.slotLimit where self.streams.isLive(slot) {
            guard !self.streams[slot].isReset, let since = self.streams[slot].stalledSince, since <= before else {
                continue
            }
            stalled.append((StreamKey(slot: slot, id: self.streams[slot].id), since))
        }
    }

    package mutating func clockJumped(now: Milliseconds) {
        guard self.phase.isPastLogin, !self.isDetached else { return }
        self.sendPing(now: now)
        self.lastReceived = now
        self.deadline = now + self.limits.deadAfterJump
    }

    package mutating func heard(now: Milliseconds) {
        self.lastReceived = now
        self.deadline = nil
    }

    /// The carrier fails. In a session this is not the end.
    private mutating func endCarrier(_ code: ErrorCode, _ text: String) -> LinkTick {
        self.canResume ? .lost(code) : self.end(code, text)
    }

    private func isPingDue(after silence: Milliseconds, now: Milliseconds) -> Bool {
        guard self.role == .agent, self.session != nil else { return silence >= self.limits.pingAfter }
        if silence >= self.limits.agentPingAfter { return true }
        // Once after each burst of traffic.
        return self.streams.count > 0 && self.lastCounted > self.lastPingSent
            && silence >= self.limits.pingAfterTraffic
    }

    private mutating func end(_ code: ErrorCode, _ text: String) -> LinkTick {
        self.goAway(code, retryAfterSeconds: 0, text: text)
        self.phase = .closed
        return .close(code)
    }

    /// Whether the bytes before our RESET have made no progress for `resetPatience`. The first call starts the timer.
    private mutating func isResetStalled(_ slot: Int, now: Milliseconds) -> Bool {
        guard let since = self.streams[slot].resetStalledSince else {
            self.streams[slot].resetStalledSince = now
            return false
        }
        return now - since >= self.limits.resetPatience
    }

    private borrowing func expiry(_ slot: Int, now: Milliseconds) -> ErrorCode? {
        guard !self.streams[slot].isReset else { return nil }
        if case .awaitingAccept(let deadline) = self.streams[slot].opening { return now >= deadline ? .timeout : nil }
        if self.limits.stalled > 0, self.streams[slot].receiveCredit.pending > 0,
            now - self.streams[slot].lastProgress >= self.limits.stalled
        {
            return .stalled
        }
        guard self.limits.halfClosedIdle > 0 else { return nil }
        switch (self.streams[slot].send, self.streams[slot].receive) {
        case (.open, .ended), (.finishing, .ended), (.finished, .open):
            return now - self.streams[slot].lastActivity >= self.limits.halfClosedIdle ? .idle : nil
        case (.open, .open), (.finishing, .open), (.finished, .ended), (.resetting, _), (.reset, _), (_, .reset):
            return nil
        }
    }

    private mutating func releaseIdleStorage() {
        self.outbox.releaseStorageIfEmpty()
        self.chargeKept()
        self.control.releaseStorageIfEmpty()
        self.urgent.releaseStorageIfEmpty()
    }
}
