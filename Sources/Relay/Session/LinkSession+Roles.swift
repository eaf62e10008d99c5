package import Reactor
package import Tunnel
package import Wire

// MARK: - Commands of the gateway

extension LinkSession {
    /// Accepts the agent's login.
    package func acceptLogin(_ welcome: Welcome) {
        self.machine.acceptLogin(welcome, now: self.loop.now)
        self.setNeedsFlush()
    }

    /// Changes the maximum numbers of streams and names.
    package func allow(streams: Int, names: Int) {
        self.machine.allow(streams: streams, names: names, now: self.loop.now)
    }

    package func answer(_ answer: Registered) {
        self.machine.answerRegister(answer)
        self.setNeedsFlush()
    }

    /// Why no stream can be opened for an exposure now; nil if one can.
    package func obstacle(toOpening exposure: UInt16) -> OpenObstacle? {
        self.isOpen ? self.machine.obstacle(toOpening: exposure) : .notUp
    }

    /// Returns whether the link has room for another stream. If it is full, may end a stream that can be spared.
    package func makeRoom() -> Bool {
        if let key = self.machine.makeRoom() {
            self.edge(key)?.finish()
            self.setNeedsFlush()
        }
        return !self.machine.isFull
    }

    /// Whether the link has opened so many streams that a new link should replace it, because stream IDs are never
    /// reused.
    package var isWornOut: Bool { self.machine.isWornOut }

    /// Opens a stream for a visitor. Returns nil if the link cannot take it; the caller then still owns the socket.
    ///
    /// - Parameters:
    ///   - visitor: the visitor's address as sent to the agent.
    ///   - local: the address to which the visitor connected.
    ///   - socket: nil for a probe of the backend.
    ///   - meter: counts the stream; `arrival` is when the visitor arrived (``EventLoop/nanoseconds``).
    package func open(
        exposure: UInt16, visitor: WireAddress, local: WireAddress, socket: SocketStream?,
        meter: (name: NameMeter, arrival: UInt64)? = nil
    ) -> Edge? {
        guard self.isOpen,
            let key = self.machine.open(exposure: exposure, visitor: visitor, local: local, now: self.loop.now)
        else { return nil }
        if let meter { self.meter?.opened(key, of: meter.name, arrival: meter.arrival) }
        return self.attach(key, exposure: exposure, visitor: visitor, socket: socket)
    }
}

// MARK: - Commands of the agent

extension LinkSession {
    package func register(_ requests: [Register]) {
        for request in requests { self.machine.register(request) }
        self.setNeedsFlush()
    }

    /// Releases names. Their streams continue. Version 1 does not support this.
    package func unregister(_ exposures: [UInt16]) {
        for exposure in exposures { self.machine.unregister(exposure) }
        self.setNeedsFlush()
    }

    /// The backend is connected. The stream takes ownership of the socket and writes `preface` to it first. If the
    /// stream has already ended, the socket is reset: the backend could mistake an orderly end for a complete, empty
    /// request.
    package func accept(_ key: StreamKey, backend socket: SocketStream, preface: [UInt8] = []) {
        guard let edge = self.edge(key) else { return socket.reset() }
        if self.isOpen { self.machine.accept(key, now: self.loop.now) }
        edge.connected(socket, preface: preface)
        self.setNeedsFlush()
    }
}
