internal import Reactor
internal import Secure
internal import Tunnel
internal import Wire

// MARK: - From the edges to the transport

extension LinkSession {
    /// Sends the machine's outbox at the end of this turn.
    func setNeedsFlush() {
        guard !self.needsFlush else { return }
        self.needsFlush = true
        self.loop.atTurnEnd(self)
    }

    func flush() {
        guard self.isCarried, self.transport.isEstablished else { return }
        while true {
            guard self.transport.canSend else {
                self.machine.congestion(true, now: self.loop.now)
                break
            }
            self.machine.fill(Self.flushBytes, now: self.loop.now)
            guard self.machine.outboxCount > 0 else { break }
            // A read of an edge is sent in one call. What a former connection lost may be much more.
            guard self.encryptOutbox(atMost: EventLoop.readBufferSize) else { return }
            self.transport.writeEncrypted()
        }
        while let key = self.machine.nextResumable() { self.edge(key)?.resume() }
    }

    /// Encrypts about `atMost` bytes of the outbox. Returns false if that failed and the transport was closed.
    func encryptOutbox(atMost: Int) -> Bool {
        var failure: SecurityError?
        self.machine.drainOutbox(atMost: atMost) { bytes in
            guard failure == nil else { return }
            do throws(SecurityError) { try self.transport.encrypt(bytes) } catch { failure = error }
        }
        guard let failure else { return true }
        self.transport.encryptionFailed(failure)
        return false
    }

    // MARK: - Acknowledgements

    /// The machine may have handled frames that no acknowledgement reports.
    func acknowledgeLater() {
        guard !self.awaitsAcknowledgement, self.machine.owesAcknowledgement else { return }
        self.awaitsAcknowledgement = true
        self.transport.buffers.acknowledger.add(self)
    }

    /// Called by the ``Acknowledger``.
    func acknowledge() {
        self.awaitsAcknowledgement = false
        self.machine.acknowledge()
        self.setNeedsFlush()
    }

    func stopAcknowledging() {
        guard self.awaitsAcknowledgement else { return }
        self.awaitsAcknowledgement = false
        self.transport.buffers.acknowledger.remove(self)
    }

    // MARK: - For the edges

    func sendAllowance(_ key: StreamKey) -> Int {
        self.isOpen ? self.machine.sendAllowance(key) : 0
    }

    func send(_ key: StreamKey, _ bytes: UnsafeRawBufferPointer) {
        self.machine.send(key, bytes.bytes, now: self.loop.now)
        self.meter?.taken(key, bytes.count)
        // Send bulk data at once, while it is in the cache. Small frames wait for the end of the turn and share a
        // record and a write.
        if self.machine.outboxCount >= Self.flushBytes { self.flush() } else { self.setNeedsFlush() }
    }

    /// The edge's socket has reached its end. Returns true if the link will deliver no more bytes for this stream.
    func finish(_ key: StreamKey) -> Bool {
        self.setNeedsFlush()
        return self.machine.finish(key, now: self.loop.now)
    }

    func consumed(_ key: StreamKey, _ count: Int) {
        self.machine.consumed(key, count, now: self.loop.now)
        self.meter?.delivered(key, count)
        self.setNeedsFlush()
        self.readAgain()
    }

    func reset(_ key: StreamKey, _ code: ErrorCode) {
        self.machine.reset(key, code)
        self.setNeedsFlush()
        self.readAgain()
    }
}

extension LinkSession: TurnEndHandler {
    package func turnDidEnd() {
        self.needsFlush = false
        self.flush()
    }
}
