internal import Reactor
package import Secure
package import Timing

// MARK: - As the gateway: before the handshake

extension LinkTransport {
    func greeted(_ progress: Greeting.Progress) {
        guard case .silent(let greeting) = self.phase else { return }
        switch progress {
        case .needMore: return
        case .header(let header):
            switch self.gatekeeper?.transport(self, didReceive: header) {
            // The handshake follows a header; a second header is not accepted.
            case .proceed, nil: self.greeted(greeting.next())
            case .wait: self.phase = .asking(greeting)
            case .refuse(let end): self.close(end)
            }
        case .whole:
            guard let gatekeeper = self.gatekeeper else { return self.begin(greeting) }
            self.phase = .waiting(greeting)
            gatekeeper.transportDidGreet(self)
        case .tooLarge: self.greetingTooLarge()
        case .failed(let end): self.close(end)
        }
    }

    private func greetingTooLarge() {
        self.hit(.clientHello)
        self.close(
            .security(SecurityError("more than \(ClientHello.maxBytes) bytes before the gateway's first answer")))
    }

    /// A waiting connection is read too, to notice when the peer closes it.
    func receivedWhileWaiting(_ bytes: UnsafeRawBufferPointer, _ greeting: Greeting) {
        guard greeting.count + bytes.count <= ClientHello.maxBytes else { return self.greetingTooLarge() }
        greeting.append(bytes)
    }

    /// Continues with an agent whose PROXY header was accepted.
    package func proceed() {
        guard case .asking(let greeting) = self.phase else { return }
        self.phase = .silent(greeting)
        self.greeted(greeting.next())
    }

    /// Ends the link of an agent whose PROXY header was rejected. The gatekeeper takes ownership of the socket and
    /// sends the alert.
    package func turnAway(_ end: LinkEnd, _ alert: TLSAlert) {
        guard case .asking = self.phase else { return }
        guard let gatekeeper = self.gatekeeper else { return self.close(end) }
        self.phase = .closing(end)
        self.delegate?.transport(self, stops: end)
        gatekeeper.transport(self, leaves: self.socket, alert)
        self.socketClosed()
    }

    /// Processes the handshake after `wait` milliseconds.
    package func shakeHands(after wait: Milliseconds) {
        guard case .waiting(let greeting) = self.phase, self.waitTimer == nil else { return }
        guard wait > 0 else { return self.begin(greeting) }
        let timer = LoopTimer(loop: self.loop) { [unowned self] in self.waited() }
        timer.start(after: wait)
        self.waitTimer = timer
    }

    private func waited() {
        guard case .waiting(let greeting) = self.phase else { return }
        // Many waits can end at once, so the limit of handshakes per turn applies here too.
        guard self.buffers.takeHandshake(turn: self.loop.turn) else {
            self.hit(.handshakeReads)
            self.waitTimer?.start(after: 1)
            return
        }
        self.endWait()
        self.begin(greeting)
    }

    func endWait() {
        self.waitTimer?.close()
        self.waitTimer = nil
    }

    private func begin(_ greeting: Greeting) {
        self.phase = .open
        do throws(SecurityError) { self.channel = try self.version.channel(isServer: true) } catch {
            return self.close(.security(error))
        }
        greeting.withHandshake { self.decrypt($0) }
    }
}
