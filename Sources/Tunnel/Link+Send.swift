internal import Bytes
package import Timing
internal import Wire

// MARK: - Bytes from the edges, and frames to the wire

extension Link {
    /// On an idle link this is the whole credit, because bytes go straight into frames. On a busy link it is the room
    /// in the stream's queue, so a stream queues at most `streamQueue` bytes.
    package mutating func sendAllowance(_ key: StreamKey) -> Int {
        guard self.phase.isPastLogin, self.streams.contains(key), case .open = self.streams[key.slot].send else {
            return 0
        }
        let queued = self.streams[key.slot].queue.count
        let credit = self.streams[key.slot].sendCredit.available - queued
        let allowance =
            self.isDirect(key.slot)
            ? min(credit, self.keepRoom + self.queueRoom) : min(credit, self.queueRoom - queued)
        if allowance <= 0 { self.streams[key.slot].isStarved = true }
        return max(0, allowance)
    }

    /// Size of a stream's send queue in bytes. It is smaller when memory is short.
    private var queueRoom: Int {
        switch self.budget.pressure {
        case .none: self.limits.streamQueue
        case .some: self.limits.pressureQueue
        case .full: self.limits.floorQueue
        }
    }

    /// Whether a stream's bytes may bypass the queues: the link is not congested and no stream is waiting.
    private func isDirect(_ slot: Int) -> Bool {
        !self.isCongested && self.keepRoom > 0 && self.fresh.isEmpty && self.active.isEmpty
            && self.streams[slot].queue.isEmpty
    }

    package mutating func send(_ key: StreamKey, _ bytes: RawSpan, now: Milliseconds) {
        guard self.phase.isPastLogin, self.streams.contains(key), case .open = self.streams[key.slot].send else {
            return
        }
        self.streams[key.slot].lastActivity = self.streamTime(now)
        var offset = 0
        if self.isDirect(key.slot) {
            self.moveControl()
            while offset < bytes.byteCount {
                let size = min(
                    bytes.byteCount - offset, WireConstant.maximumPayload,
                    self.streams[key.slot].sendCredit.available)
                guard size > 0, self.keepRoom > 0 else { break }
                self.outbox.append(
                    FrameHeader(id: key.id, type: .data, length: size), bytes.extracting(offset..<(offset + size)))
                self.sent(key.slot, size)
                offset += size
            }
        }
        guard offset < bytes.byteCount else { return }
        self.streams[key.slot].queue.append(bytes.extracting(offset..<bytes.byteCount))
        self.streams[key.slot].chargeQueue(self.budget)
        self.schedule(key.slot)
    }

    /// Sends FIN after the queued bytes. Returns false because the peer's direction stays open.
    @discardableResult
    package mutating func finish(_ key: StreamKey, now: Milliseconds) -> Bool {
        guard self.streams.contains(key), case .open = self.streams[key.slot].send else { return false }
        self.streams[key.slot].lastActivity = self.streamTime(now)
        self.streams[key.slot].send = .finishing
        if self.isDirect(key.slot) {
            self.moveControl()
            self.appendFin(key.slot)
        } else {
            self.schedule(key.slot)
        }
        return false
    }

    package mutating func consumed(_ key: StreamKey, _ count: Int, now: Milliseconds) {
        guard count > 0, self.streams.contains(key) else { return }
        let now = self.streamTime(now)
        self.streams[key.slot].receiveCredit.consume(
            count, budget: self.budget, roundTrip: self.roundTrip, now: now)
        self.streams[key.slot].lastProgress = now
        self.streams[key.slot].lastActivity = now
        guard case .open = self.streams[key.slot].receive else { return }
        guard
            self.streams[key.slot].receiveCredit.grant(
                limits: self.limits, budget: self.budget, roundTrip: self.roundTrip)
        else { return }
        // Before ACCEPT the agent sends no WINDOW: ACCEPT carries the limit.
        if case .awaitingAccept = self.streams[key.slot].opening, self.role == .agent { return }
        guard !self.streams[key.slot].owesWindow else { return }
        self.streams[key.slot].owesWindow = true
        self.windows.append(key)
    }

    package mutating func progressed(_ key: StreamKey, now: Milliseconds) {
        guard self.streams.contains(key) else { return }
        self.streams[key.slot].lastProgress = self.streamTime(now)
    }

    package mutating func congestion(_ isCongested: Bool, now: Milliseconds) {
        if isCongested, !self.isCongested { self.lastOutputProgress = now }
        self.isCongested = isCongested
    }

    package mutating func outputProgressed(now: Milliseconds) {
        self.lastOutputProgress = now
    }

    /// Control frames go first, then data in deficit round robin: one full frame per stream and round.
    package mutating func fill(_ atMost: Int, now: Milliseconds) {
        if self.outbox.inFlight == 0 { self.unacknowledgedSince = now }
        self.moveControl()
        self.queueAcknowledgement()
        guard self.phase != .closed else { return }
        defer { self.chargeKept() }
        if self.keepRoom == 0, !self.fresh.isEmpty || !self.active.isEmpty {
            if self.keepBound.limited() { self.hits.keptInFull += 1 }
        }
        while self.outbox.unsent < atMost, self.keepRoom > 0, let key = self.fresh.popFirst() {
            guard self.streams.contains(key), self.streams[key.slot].isScheduled else { continue }
            self.serve(key.slot)
            if self.buryOrphan(key.slot) { continue }
            // A stream with an empty queue joins the ring too. Otherwise each new burst would make it fresh and put it
            // first.
            self.active.append(key)
        }
        while self.outbox.unsent < atMost, self.keepRoom > 0, let key = self.active.popFirst() {
            guard self.streams.contains(key), self.streams[key.slot].isScheduled else { continue }
            if self.serve(key.slot) {
                self.active.append(key)
            } else if !self.buryOrphan(key.slot) {
                self.streams[key.slot].isScheduled = false
                self.streams[key.slot].deficit = 0
            }
        }
    }

    package mutating func drainOutbox(atMost: Int, _ body: (UnsafeRawBufferPointer) -> Void) {
        if !self.urgent.isEmpty {
            // A few bytes more share the record.
            if self.outbox.unsent <= Self.sharedRecord {
                var queue = ByteQueue()
                swap(&queue, &self.urgent)
                self.outbox.send(atMost: .max) { queue.append($0) }
                queue.withReadable(body)
                queue.removeAll()
                swap(&queue, &self.urgent)
            } else {
                self.urgent.withReadable(body)
                self.urgent.removeAll()
            }
        }
        self.outbox.send(atMost: atMost, body)
        guard self.outbox.unsent == 0, !self.farewell.isEmpty else { return }
        self.farewell.withReadable(body)
        self.farewell.removeAll()
    }

    /// In bytes.
    private static let sharedRecord = 2_048

    package mutating func nextResumable() -> StreamKey? {
        while let key = self.resumable.popFirst() {
            if self.streams.contains(key), case .open = self.streams[key.slot].send { return key }
        }
        return nil
    }

    // MARK: - Scheduling

    /// Sends one quantum of a stream. Returns true if more could be sent now.
    @discardableResult
    private mutating func serve(_ slot: Int) -> Bool {
        let id = self.streams[slot].id
        self.streams[slot].deficit += WireConstant.maximumPayload
        while true {
            let size = min(
                self.streams[slot].queue.count, WireConstant.maximumPayload,
                self.streams[slot].sendCredit.available)
            guard size > 0, size <= self.streams[slot].deficit else { break }
            self.outbox.append(
                FrameHeader(id: id, type: .data, length: size), from: &self.streams[slot].queue)
            self.streams[slot].deficit -= size
            self.sent(slot, size)
        }
        if self.streams[slot].queue.isEmpty {
            // When memory is short, keep no storage for the next burst.
            if self.budget.pressure != .none { self.releaseQueue(slot) }
            self.appendEnd(slot)
        }
        self.resumeIfStarved(slot)
        return !self.streams[slot].queue.isEmpty && self.streams[slot].sendCredit.available > 0
    }

    /// Frees the slot of an orphan when its FIN or RESET has been sent. Returns whether it did.
    private mutating func buryOrphan(_ slot: Int) -> Bool {
        guard self.streams[slot].isOrphan, self.streams[slot].isComplete || self.streams[slot].isReset else {
            return false
        }
        self.remove(slot)
        return true
    }

    private mutating func sent(_ slot: Int, _ count: Int) {
        self.streams[slot].sendCredit.send(count)
        self.streams[slot].resetStalledSince = nil
        self.statistics.dataFramesSent += 1
        self.statistics.bytesSent &+= UInt64(count)
    }

    /// Sends the FIN or RESET that follows the bytes of the queue, which is empty now.
    private mutating func appendEnd(_ slot: Int) {
        switch self.streams[slot].send {
        case .finishing: self.appendFin(slot)
        case .resetting(let code, let finFirst):
            if finFirst { self.appendFin(slot) }
            self.outbox.append(.reset, id: self.streams[slot].id, code.rawValue)
            self.statistics.resetsSent += 1
            self.endSending(slot)
        case .open, .finished, .reset: break
        }
    }

    private mutating func appendFin(_ slot: Int) {
        let header = FrameHeader(id: self.streams[slot].id, type: .data, flags: FrameFlag.fin, length: 0)
        self.outbox.append(header, RawSpan())
        self.streams[slot].send = .finished
        self.releaseQueue(slot)
        self.statistics.dataFramesSent += 1
    }

    private mutating func schedule(_ slot: Int) {
        guard !self.streams[slot].isScheduled else { return }
        let hasWork = self.streams[slot].queue.isEmpty || self.streams[slot].sendCredit.available > 0
        guard hasWork else { return }
        self.streams[slot].isScheduled = true
        self.fresh.append(StreamKey(slot: slot, id: self.streams[slot].id))
    }

    /// The peer has raised the limit.
    mutating func creditGrew(_ slot: Int) {
        if !self.streams[slot].queue.isEmpty { self.schedule(slot) }
        self.resumeIfStarved(slot)
    }

    private mutating func resumeIfStarved(_ slot: Int) {
        guard self.streams[slot].isStarved, case .open = self.streams[slot].send else { return }
        let queued = self.streams[slot].queue.count
        guard queued <= self.queueRoom / 2, self.streams[slot].sendCredit.available > queued else { return }
        self.streams[slot].isStarved = false
        self.resumable.append(StreamKey(slot: slot, id: self.streams[slot].id))
    }

    /// Moves control frames into the outbox, then one WINDOW for each stream that owes one.
    private mutating func moveControl() {
        if !self.control.isEmpty {
            let before = self.control.count
            self.outbox.append(framesOf: &self.control, atMost: self.controlRoom)
            self.exemptControl = max(0, self.exemptControl - (before - self.control.count))
        }
        while self.controlRoom > WireConstant.headerSize, let key = self.windows.popFirst() {
            guard self.streams.contains(key) else { continue }
            self.streams[key.slot].owesWindow = false
            guard case .open = self.streams[key.slot].receive, self.phase != .closed else { continue }
            self.streams[key.slot].receiveCredit.topUp(budget: self.budget)
            self.outbox.append(.window, id: key.id, self.streams[key.slot].receiveCredit.announce())
        }
    }
}
