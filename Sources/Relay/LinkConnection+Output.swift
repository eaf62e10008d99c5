internal import Bytes
internal import Reactor
internal import Secure
internal import Tunnel

// MARK: - To the socket of the link

extension LinkConnection {
    func flush() {
        guard self.isOpen, let channel = self.channel, channel.isEstablished else { return }
        while true {
            guard self.socket.queuedByteCount == 0, !self.socket.isBroken else {
                self.link.congestion(true, now: self.loop.now)
                break
            }
            self.link.fill(Self.flushBytes, now: self.loop.now)
            guard self.link.outboxCount > 0 else { break }
            guard self.encryptOutbox(channel) else { return }
            self.writeCipher()
        }
        while let key = self.link.nextResumable() { self.edge(key)?.resume() }
    }

    /// False when that failed and the connection is closed.
    func encryptOutbox(_ channel: any SecureChannel) -> Bool {
        var failure: SecurityError?
        self.link.drainOutbox { bytes in
            do throws(SecurityError) { try channel.encrypt(bytes, output: &self.buffers.cipher) } catch {
                failure = error
            }
            return bytes.count
        }
        guard let failure else { return true }
        // The buffer is shared: nothing of this link may reach another.
        self.buffers.cipher.removeAll()
        self.close(.security(failure))
        return false
    }

    func writeCipher() {
        guard !self.buffers.cipher.isEmpty else { return }
        _ = self.buffers.cipher.withReadable { self.socket.write($0) }
        self.buffers.cipher.removeAll()
        self.outputQueued(self.socket.queuedByteCount)
    }
}

extension LinkConnection: TurnEndHandler {
    package func turnDidEnd() {
        self.needsFlush = false
        self.flush()
    }
}
