internal import Bytes
package import Timing
package import Tunnel
internal import Wire

// MARK: - Bytes from the edges

extension Version1Link {
    /// Nothing is queued here: edges read while the link's socket takes bytes. When the socket is full, they wait in
    /// line. When it takes bytes again, each gets a turn of the same size, even if others have filled the socket since.
    package mutating func sendAllowance(_ key: StreamKey) -> Int {
        guard self.contains(key) else { return 0 }
        switch self.streams[key.slot].state {
        case .waiting, .open:
            if self.streams[key.slot].turn > 0 { return self.streams[key.slot].turn }
            if !self.isCongested, self.starved.isEmpty { return self.limits.sendSize }
            self.starve(key.slot)
            return 0
        // Keep reading to notice the end of the edge, up to a limit: an edge that never ends is left to its deadline.
        case .closedByPeer: return max(0, self.limits.discardedBytes - self.streams[key.slot].discarded)
        case .halfClosed, .over, .free: return 0
        }
    }

    private mutating func starve(_ slot: Int) {
        guard !self.streams[slot].isStarved else { return }
        self.streams[slot].isStarved = true
        self.starved.append(self.streams[slot].key)
    }

    package mutating func send(_ key: StreamKey, _ bytes: RawSpan, now: Milliseconds) {
        guard self.contains(key) else { return }
        self.clock = now
        switch self.streams[key.slot].state {
        case .waiting, .open: break
        case .closedByPeer:
            self.streams[key.slot].discarded += bytes.byteCount
            return
        case .halfClosed, .over, .free: return
        }
        self.streams[key.slot].state = .open
        self.streams[key.slot].turn = max(0, self.streams[key.slot].turn - bytes.byteCount)
        self.streams[key.slot].hasAnswer = false
        self.streams[key.slot].lastActivity = now
        var offset = 0
        while offset < bytes.byteCount {
            let size = min(bytes.byteCount - offset, FrameHeader.maximumPayload)
            appendHeader(.payload, id: self.streams[key.slot].wireID, length: size, to: &self.outbox)
            self.outbox.append(bytes.extracting(offset..<(offset + size)))
            offset += size
        }
    }

    /// The agent closes the stream. The gateway waits for the rest of the answer: `Close` would also end the backend's
    /// direction, and a visitor that ends its direction after the request would get no answer.
    package mutating func finish(_ key: StreamKey, now: Milliseconds) -> Bool {
        guard self.contains(key) else { return false }
        self.clock = now
        self.streams[key.slot].lastActivity = now
        switch (self.streams[key.slot].state, self.role) {
        case (.open, .gateway):
            self.streams[key.slot].state = .halfClosed
            return false
        case (.waiting, _), (.open, .agent), (.closedByPeer, _):
            self.end(key.slot)
            return true
        case (.halfClosed, _), (.over, _), (.free, _): return false
        }
    }

    package mutating func consumed(_ key: StreamKey, _ count: Int, now: Milliseconds) {
        guard count > 0, self.contains(key), self.streams[key.slot].pending > 0 else { return }
        precondition(count <= self.streams[key.slot].pending, "more written on than had arrived")
        self.clock = now
        self.streams[key.slot].pending -= count
        self.budget.give(count)
        self.streams[key.slot].lastProgress = now
        self.streams[key.slot].lastActivity = now
        self.judge(key.slot)
    }

    package mutating func progressed(_ key: StreamKey, now: Milliseconds) {
        guard self.contains(key) else { return }
        self.streams[key.slot].lastProgress = now
        self.streams[key.slot].lastActivity = now
    }

    /// Sends nothing: version 1 has no frame for this.
    package mutating func accept(_ key: StreamKey, now: Milliseconds) {
        guard self.contains(key) else { return }
        self.streams[key.slot].isConnected = true
        self.streams[key.slot].lastJudgement = nil
    }

    package mutating func nextResumable() -> StreamKey? {
        guard !self.isCongested else { return nil }
        // Bound the total of all turns: streams wait less, and many of them make progress.
        let turn = min(
            max(self.limits.turnBytes / max(self.starved.count, 1), self.limits.minTurn), self.limits.maxTurn)
        while let key = self.starved.popFirst() {
            guard self.contains(key) else { continue }
            self.streams[key.slot].isStarved = false
            self.streams[key.slot].turn = turn
            return key
        }
        return nil
    }

    // MARK: The link's socket

    package mutating func congestion(_ isCongested: Bool, now: Milliseconds) {
        if isCongested, !self.isCongested { self.lastOutputProgress = now }
        self.isCongested = isCongested
    }

    package mutating func outputProgressed(now: Milliseconds) { self.lastOutputProgress = now }

    /// Does nothing: all frames are already in the outbox.
    package mutating func fill(_ atMost: Int, now: Milliseconds) {}

    package mutating func drainOutbox(atMost: Int, _ body: (UnsafeRawBufferPointer) -> Void) {
        guard !self.outbox.isEmpty else { return }
        self.outbox.withReadable(body)
        self.outbox.removeAll()
    }

    // MARK: Slow edges

    /// Updates whether a stream holds up the link.
    mutating func judge(_ slot: Int) {
        let key = self.streams[slot].key
        let pending = self.streams[slot].pending
        if let mark = self.streams[slot].slowMark {
            guard pending < mark else { return }
            self.streams[slot].slowMark = nil
            self.slow.removeAll { $0 == key }
        } else if pending >= self.limits.slowStreamUnderPressure {
            // When memory is short, fewer bytes may wait.
            let isShort = self.budget.available < self.limits.readSize
            let mark = isShort ? self.limits.slowStreamUnderPressure : self.limits.slowStream
            guard pending >= mark else { return }
            self.streams[slot].slowMark = mark
            self.streams[slot].lastJudgement = nil
            self.slow.append(key)
            if isShort { self.waitsForMemory() }
        }
    }

    package mutating func judgeSlowStreams(
        now: Milliseconds, unacknowledged: (StreamKey) -> Int, expired: inout [(StreamKey, StreamExpiry)]
    ) {
        self.clock = now
        for key in self.slow where self.contains(key) {
            // A backend that is being connected has its own deadline.
            guard self.streams[key.slot].isConnected else { continue }
            // The kernel takes bytes only in large pieces, so the bytes it holds show how fast the peer really reads.
            let waiting = self.streams[key.slot].pending + unacknowledged(key)
            guard let last = self.streams[key.slot].lastJudgement else {
                self.streams[key.slot].lastJudgement = (waiting, now)
                continue
            }
            guard now - last.time >= self.limits.patience else { continue }
            self.streams[key.slot].lastJudgement = (waiting, now)
            guard last.waiting - waiting < self.limits.minProgress else { continue }
            self.reset(key, .stalled)
            expired.append((key, .reset(.stalled)))
        }
    }
}
