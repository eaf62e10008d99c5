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
            if let end = self.gatekeeper?.link(self, didReceive: header) { return self.refuse(end) }
            guard case .silent(let greeting) = self.phase else { return }
            // Behind a header comes no other one.
            self.greeted(greeting.next())
        case .whole(let bytes): self.greetingArrived(bytes)
        case .tooLarge:
            self.hit(.clientHello)
            self.close(.security(SecurityError("a ClientHello of more than \(ClientHello.most) bytes")))
        case .failed(let end): self.close(end)
        }
    }

    private func greetingArrived(_ bytes: [UInt8]) {
        let wait = self.gatekeeper?.linkDidGreet(self) ?? 0
        guard wait > 0 else { return self.shakeHands(bytes) }
        self.socket.stopReading()
        let timer = LoopTimer(loop: self.loop) { [unowned self] in self.waited(bytes) }
        timer.start(after: wait)
        self.phase = .waiting(timer)
    }

    private func waited(_ bytes: [UInt8]) {
        guard case .waiting(let timer) = self.phase else { return }
        timer.close()
        self.shakeHands(bytes)
        if self.isOpen { self.socket.startReading() }
    }

    private func shakeHands(_ bytes: [UInt8]) {
        self.phase = .open
        do throws(SecurityError) { self.channel = try self.version.channel(isServer: true) } catch {
            return self.close(.security(error))
        }
        bytes.withUnsafeBytes { self.decrypt($0) }
    }

    /// Ends a connection that has not begun its handshake, with a word on the reason if there is one.
    private func refuse(_ end: LinkEnd) {
        guard case .version2 = self.version, let alert = end.alert else { return self.close(end) }
        alert.record.withUnsafeBytes { _ = self.socket.write($0) }
        self.linger(end, for: Self.shortLingerMilliseconds)
    }
}

extension LinkEnd {
    /// How it is said before there are keys.
    fileprivate var alert: TLSAlert? {
        switch self {
        case .ended(.denied, _): .accessDenied
        case .ended(.tooManyLinks, _): .internalError
        default: nil
        }
    }
}
