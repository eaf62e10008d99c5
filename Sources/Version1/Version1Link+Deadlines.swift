internal import Bytes
package import Timing
package import Tunnel
internal import Wire

// MARK: - The clock

extension Version1Link {
    package mutating func tick(now: Milliseconds, expired: inout [(StreamKey, StreamExpiry)]) -> LinkTick {
        self.clock = now
        if let refusal = self.refusal {
            self.stage = .closed
            return .close(refusal)
        }
        if self.isCongested, now - self.lastOutputProgress >= self.limits.outputStalled {
            return self.close(.stalled, "the peer accepts no bytes")
        }
        switch self.stage {
        case .closed: return .none
        case .authenticating, .naming:
            // The gateway's authentication and registration have their own deadlines.
            guard self.role == .agent else { return .none }
            return self.loginTick()
        case .login, .name, .finish: return self.loginTick()
        case .open, .leaving: break
        }
        for stream in self.streams {
            guard let expiry = self.expiry(stream) else { continue }
            self.end(stream.key.slot)
            if case .reset = expiry { self.forgetPending(stream.key.slot) }
            expired.append((stream.key, expiry))
        }
        self.outbox.releaseStorageIfEmpty()
        return .none
    }

    private mutating func loginTick() -> LinkTick {
        guard self.clock - self.stageBegan >= self.limits.loginDeadline else { return .none }
        return self.close(.handshakeTimeout, "the login took too long")
    }

    private mutating func close(_ code: ErrorCode, _ text: String) -> LinkTick {
        self.goAway(code, retryAfterSeconds: 0, text: text)
        self.stage = .closed
        return .close(code)
    }

    private func expiry(_ stream: Stream) -> StreamExpiry? {
        if case .free = stream.state { return nil }
        if stream.pending > 0 {
            guard self.limits.stalled > 0 else { return nil }
            return self.clock - stream.lastProgress >= self.limits.stalled ? .reset(.stalled) : nil
        }
        let quiet = self.clock - stream.lastActivity
        switch stream.state {
        case .waiting, .open, .over, .free: return nil
        case .halfClosed:
            return quiet >= (stream.hasAnswer ? self.limits.quietGrace : self.limits.answerGrace) ? .finish : nil
        case .closedByPeer: return quiet >= self.limits.closedGrace ? .finish : nil
        }
    }

    package mutating func stalledSince(_ key: StreamKey) -> Milliseconds? {
        guard self.contains(key), self.streams[key.slot].pending > 0 else { return nil }
        return max(self.streams[key.slot].lastActivity, self.streams[key.slot].lastProgress)
    }

    package mutating func stalledStreams(
        before: Milliseconds, into stalled: inout [(StreamKey, since: Milliseconds)]
    ) {
        for stream in self.streams {
            guard let since = self.stalledSince(stream.key), since <= before else { continue }
            stalled.append((stream.key, since))
        }
    }

    /// Does nothing: version 1 has no PING, so silence does not prove that the peer is dead. TCP keep-alive detects
    /// that.
    package mutating func heard(now: Milliseconds) {}

    /// Does nothing: version 1 has no PING.
    package mutating func clockJumped(now: Milliseconds) {}
}
