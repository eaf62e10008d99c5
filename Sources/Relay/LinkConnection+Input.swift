internal import Bytes
internal import Reactor
internal import Secure
internal import Tunnel
internal import Wire

// MARK: - From the socket of the link, decrypted

extension LinkConnection {
    func received(_ bytes: UnsafeRawBufferPointer) {
        switch self.phase {
        case .silent(let greeting): self.greeted(greeting.received(bytes))
        case .waiting(let greeting): self.receivedWhileWaiting(bytes, greeting)
        default: self.decrypt(bytes)
        }
    }

    func decrypt(_ bytes: UnsafeRawBufferPointer) {
        guard case .open = self.phase, let channel = self.channel else { return }
        let carried = self.partial.count
        let plain = self.buffers.plain
        self.partial.withReadable { UnsafeMutableRawBufferPointer(rebasing: plain[0..<$0.count]).copyMemory(from: $0) }
        self.partial.removeAll()
        let wasEstablished = channel.isEstablished
        let before = (records: channel.recordsReceived, frames: self.link.framesReceived)
        let count: Int
        do throws(SecurityError) {
            count = try channel.receive(
                bytes, into: UnsafeMutableRawBufferPointer(rebasing: plain[carried...]), output: &self.buffers.cipher)
        } catch {
            if let limit = error.limit { self.hit(LimitHit(limit)) }
            // The alert that tells the peer why.
            self.writeCipher()
            return self.close(.security(error))
        }
        self.writeCipher()
        if !wasEstablished, let peer = channel.peer {
            switch self.delegate?.link(self, didSecure: peer) {
            case .refuse(let error): return self.close(.security(error))
            case nil: return self.close(.ended(.internalError, "the link has no session"))
            case .proceed(let login):
                self.link.start(software: self.software)
                if let login { self.link.login(login) }
                self.setNeedsFlush()
            }
        }
        if count > 0 { self.link.heard(now: self.loop.now) }
        self.handle(UnsafeRawBufferPointer(rebasing: plain[0..<(carried + count)]))
        self.readBudget.spent(
            bytes: bytes.count, records: channel.recordsReceived - before.records,
            frames: Int(clamping: self.link.framesReceived - before.frames), edges: self.edgesTouched,
            now: self.loop.now)
        if channel.isClosedByPeer { self.close(.closedByPeer) }
    }

    private func handle(_ batch: UnsafeRawBufferPointer) {
        var offset = 0
        let now = self.loop.now
        frames: while true {
            let event = self.link.nextEvent(batch.bytes, at: &offset, now: now)
            switch event {
            case .needMore: break frames
            case .data(let key, let range, let fin):
                guard let edge = self.edge(key) else { continue }
                if edge.take(UnsafeRawBufferPointer(rebasing: batch[range]), fin: fin) { self.touched.append(edge) }
            case .reset(let key, let code):
                self.edge(key)?.endAfterDelivery(.resetByPeer(code))
            case .violation(let violation):
                self.linger(.violation(violation))
                break frames
            case .goAway(let goAway):
                // Deliver the bytes before a final GOAWAY and close the link first: the delegate may stop the program.
                if self.link.phase == .closed {
                    self.deliver()
                    self.close(.goAway(goAway))
                    self.delegate?.link(self, did: event)
                    return
                }
                self.delegate?.link(self, did: event)
            case .accepted(let key):
                self.meter?.accepted(key)
                self.delegate?.link(self, did: event)
            case .login, .welcomed, .register, .registered, .unregister, .opened, .ready:
                self.delegate?.link(self, did: event)
            }
            guard self.isOpen else { break frames }
        }
        self.deliver()
        if self.isOpen {
            self.partial.append(UnsafeRawBufferPointer(rebasing: batch[offset...]))
            // Frames that ask nothing of us may have been answered by the machine.
            if self.link.needsFlush { self.setNeedsFlush() }
        }
    }

    /// Stops reading as long as a slow stream keeps the link waiting.
    private func judgeInput() {
        guard self.isOpen, !self.link.takesInput else { return }
        let hold =
            self.inputHold
            ?? InputHold(loop: self.loop) { [unowned self] in
                let edges = self.edges
                self.link.judgeSlowStreams(
                    now: self.loop.now, unacknowledged: { edges[$0.slot]?.unacknowledgedByteCount ?? 0 },
                    expired: &self.expired)
                self.hit(.slowStream, self.expired.count)
                self.endExpired()
                self.setNeedsFlush()
                self.readAgain()
            }
        self.inputHold = hold
        guard hold.begin() else { return }
        self.hit(.slowStreamHold)
        self.socket.stopReading()
    }

    func readAgain() {
        guard let hold = self.inputHold, self.isOpen, self.link.takesInput else { return }
        if hold.end() { self.socket.startReading() }
    }

    private func deliver() {
        self.edgesTouched = self.touched.count
        for edge in self.touched { edge.flushPieces() }
        self.touched.removeAll(keepingCapacity: true)
        self.judgeInput()
    }
}
