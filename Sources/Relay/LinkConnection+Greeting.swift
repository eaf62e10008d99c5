internal import ProxyProtocol
internal import Reactor
internal import Secure
internal import Timing
internal import Tunnel
internal import Wire

// MARK: - As the gateway: before the handshake

extension LinkConnection {
    func greeted(_ progress: Greeting.Progress) {
        switch progress {
        case .needMore: return
        case .header(let header):
            switch self.gatekeeper?.link(self, didReceive: header) {
            case .proceed, nil: break
            case .refuse(let end): return self.close(end)
            case .tell(let end): return self.handOver(end)
            }
            guard case .silent(let greeting) = self.phase else { return }
            // Behind a header comes no other one.
            self.greeted(greeting.next())
        case .whole(let bytes): self.greetingArrived(bytes)
        case .tooLarge: self.greetingTooLarge()
        case .failed(let end): self.close(end)
        }
    }

    private func greetingTooLarge() {
        self.hit(.clientHello)
        self.close(.security(SecurityError("more than \(ClientHello.most) bytes before the gateway's first answer")))
    }

    private func greetingArrived(_ bytes: [UInt8]) {
        let wait = self.gatekeeper?.linkDidGreet(self) ?? 0
        guard wait > 0 else { return self.shakeHands(bytes) }
        self.phase = .waiting(bytes)
        let timer = LoopTimer(loop: self.loop) { [unowned self] in self.waited() }
        timer.start(after: wait)
        self.waitTimer = timer
    }

    /// While its handshake waits, a connection is read so that its end is noticed.
    func receivedWhileWaiting(_ first: [UInt8], _ more: UnsafeRawBufferPointer) {
        guard first.count + more.count <= ClientHello.most else { return self.greetingTooLarge() }
        self.phase = .waiting(first + more)
    }

    private func waited() {
        guard case .waiting(let bytes) = self.phase else { return }
        // Many may have waited for the same moment.
        guard self.buffers.takeHandshake(turn: self.loop.turn) else {
            self.hit(.handshakeReads)
            self.waitTimer?.start(after: 1)
            return
        }
        self.endWait()
        self.shakeHands(bytes)
    }

    func endWait() {
        self.waitTimer?.close()
        self.waitTimer = nil
    }

    private func shakeHands(_ bytes: [UInt8]) {
        self.phase = .open
        do throws(SecurityError) { self.channel = try self.version.channel(isServer: true) } catch {
            return self.close(.security(error))
        }
        bytes.withUnsafeBytes { self.decrypt($0) }
    }

    /// Ends, and leaves the socket to whoever tells the peer why.
    private func handOver(_ end: LinkEnd) {
        guard let gatekeeper = self.gatekeeper else { return self.close(end) }
        self.phase = .closing(end)
        self.link.shut()
        gatekeeper.link(self, leaves: self.socket, end)
        self.socketClosed()
    }
}
