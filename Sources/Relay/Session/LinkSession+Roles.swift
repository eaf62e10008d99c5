package import Reactor
package import Tunnel
package import Wire

// MARK: - Commands of the gateway

extension LinkSession {
    /// The authenticator said yes.
    package func acceptLogin(_ welcome: Welcome) {
        self.machine.acceptLogin(welcome, now: self.loop.now)
        self.setNeedsFlush()
    }

    /// Has other numbers of streams and names from now on.
    package func allow(streams: Int, names: Int) {
        self.machine.allow(streams: streams, names: names, now: self.loop.now)
    }

    package func answer(_ answer: Registered) {
        self.machine.answerRegister(answer)
        self.setNeedsFlush()
    }

    /// Why the agent cannot take another stream of an exposure now; nil when it can.
    package func obstacle(toOpening exposure: UInt16) -> OpenObstacle? {
        self.isOpen ? self.machine.obstacle(toOpening: exposure) : .notUp
    }

    /// Whether the link has room for another stream, where possible by ending one that can be spared.
    package func makeRoom() -> Bool {
        if let key = self.machine.makeRoom() {
            self.edge(key)?.finish()
            self.setNeedsFlush()
        }
        return !self.machine.isFull
    }

    /// Whether so many streams were opened that the link should make way for a new one.
    package var isWornOut: Bool { self.machine.isWornOut }

    /// Opens a stream for a visitor; nil when the link cannot take it.
    ///
    /// - Parameters:
    ///   - visitor: the address that the agent receives.
    ///   - local: the address that the visitor has reached.
    ///   - socket: nil for a probe of the backend.
    ///   - meter: what counts the stream, and when the visitor arrived, in nanoseconds of the monotonic clock.
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

    /// Gives names back; their streams go on. Version 1 cannot.
    package func unregister(_ exposures: [UInt16]) {
        for exposure in exposures { self.machine.unregister(exposure) }
        self.setNeedsFlush()
    }

    /// The backend is connected and receives `preface` first. If the stream has ended, the connection is reset: the backend
    /// could take an orderly end for a complete, empty request.
    package func accept(_ key: StreamKey, backend socket: SocketStream, preface: [UInt8] = []) {
        guard let edge = self.edge(key) else { return socket.reset() }
        if self.isOpen { self.machine.accept(key, now: self.loop.now) }
        edge.connected(socket, preface: preface)
        self.setNeedsFlush()
    }
}
