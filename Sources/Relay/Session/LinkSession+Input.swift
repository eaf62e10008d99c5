internal import Reactor
internal import Tunnel
internal import Wire

// MARK: - From the transport to the edges

extension LinkSession {
    func handle(_ batch: UnsafeRawBufferPointer) -> HandledBatch {
        var offset = 0
        let now = self.loop.now
        let framesBefore = self.machine.framesReceived
        frames: while true {
            let event = self.machine.nextEvent(batch.bytes, at: &offset, now: now)
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
            case .goAway(let goAway) where self.machine.phase == .closed:
                // First deliver the bytes before a final GOAWAY and close the link: the delegate may stop the program.
                let edges = self.deliver()
                self.close(.goAway(goAway))
                self.delegate?.link(self, did: event)
                return HandledBatch(used: offset, frames: self.frames(since: framesBefore), edges: edges)
            case .opened(let key, let open):
                _ = self.attach(key, exposure: open.exposure, visitor: open.visitor, socket: nil)
                self.delegate?.link(self, did: event)
            case .accepted(let key):
                self.meter?.accepted(key)
                self.delegate?.link(self, did: event)
            case .login, .greeted, .resume, .resumed, .welcomed, .register, .registered, .unregister, .ready, .goAway:
                self.delegate?.link(self, did: event)
            }
            guard self.isOpen else { break frames }
        }
        let edges = self.deliver()
        self.acknowledgeLater()
        // The machine may have answered frames that produced no event.
        if self.isOpen, self.machine.needsFlush { self.setNeedsFlush() }
        return HandledBatch(used: offset, frames: self.frames(since: framesBefore), edges: edges)
    }

    private func frames(since before: UInt64) -> Int { Int(clamping: self.machine.framesReceived - before) }

    /// Writes the bytes of the batch to their edges and returns the number of edges.
    private func deliver() -> Int {
        let count = self.touched.count
        for edge in self.touched { edge.flushPieces() }
        self.touched.removeAll(keepingCapacity: true)
        self.judgeInput()
        return count
    }

    /// Stops reading while a slow stream holds up the link. Version 1 only: version 2 has flow control.
    private func judgeInput() {
        guard self.isOpen, !self.machine.takesInput else { return }
        let hold =
            self.inputHold
            ?? InputHold(loop: self.loop) { [unowned self] in
                let edges = self.edges
                self.machine.judgeSlowStreams(
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
        self.transport.pauseReading()
    }

    /// Resumes reading if no stream holds up the link any more. Call it when a stream may have caught up.
    func readAgain() {
        guard let hold = self.inputHold, self.isOpen, self.machine.takesInput else { return }
        if hold.end() { self.transport.resumeReading() }
    }
}
