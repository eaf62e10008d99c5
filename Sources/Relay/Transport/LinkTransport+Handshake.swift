internal import ProxyProtocol
internal import Reactor
internal import Secure
internal import Timing

// MARK: - As the gateway: before the handshake

extension LinkTransport {
    func greeted(_ progress: Greeting.Progress) {
        switch progress {
        case .needMore: return
        case .header(let header):
            switch self.gatekeeper?.transport(self, didReceive: header) {
            case .proceed, nil: break
            case .refuse(let end): return self.close(end)
            case .tell(let end, let alert): return self.handOver(end, alert)
            }
            // A header is followed by the handshake, not by another header.
            if case .silent(let greeting) = self.phase { self.greeted(greeting.next()) }
        case .whole: self.greetingArrived()
        case .tooLarge: self.greetingTooLarge()
        case .failed(let end): self.close(end)
        }
    }

    private func greetingTooLarge() {
        self.hit(.clientHello)
        self.close(.security(SecurityError("more than \(ClientHello.most) bytes before the gateway's first answer")))
    }

    private func greetingArrived() {
        guard case .silent(let greeting) = self.phase else { return }
        let wait = self.gatekeeper?.transportDidGreet(self) ?? 0
        guard wait > 0 else { return self.shakeHands(greeting) }
        self.phase = .waiting(greeting)
        let timer = LoopTimer(loop: self.loop) { [unowned self] in self.waited() }
        timer.start(after: wait)
        self.waitTimer = timer
    }

    /// A connection is read while its handshake waits, to notice when the peer closes it.
    func receivedWhileWaiting(_ bytes: UnsafeRawBufferPointer, _ greeting: Greeting) {
        guard greeting.count + bytes.count <= ClientHello.most else { return self.greetingTooLarge() }
        greeting.append(bytes)
    }

    private func waited() {
        guard case .waiting(let greeting) = self.phase else { return }
        // Many waits can end at the same time.
        guard self.buffers.takeHandshake(turn: self.loop.turn) else {
            self.hit(.handshakeReads)
            self.waitTimer?.start(after: 1)
            return
        }
        self.endWait()
        self.shakeHands(greeting)
    }

    func endWait() {
        self.waitTimer?.close()
        self.waitTimer = nil
    }

    private func shakeHands(_ greeting: Greeting) {
        self.phase = .open
        do throws(SecurityError) { self.channel = try self.version.channel(isServer: true) } catch {
            return self.close(.security(error))
        }
        greeting.withHandshake { self.decrypt($0) }
    }

    /// Ends the link and leaves the socket to the gatekeeper, which sends the alert.
    private func handOver(_ end: LinkEnd, _ alert: TLSAlert) {
        guard let gatekeeper = self.gatekeeper else { return self.close(end) }
        self.phase = .closing(end)
        self.delegate?.transport(self, stops: end)
        gatekeeper.transport(self, leaves: self.socket, alert)
        self.socketClosed()
    }
}
