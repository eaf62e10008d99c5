internal import AgentCore
internal import Journal
internal import Logging
internal import Reactor
internal import Settings
internal import Wire

// MARK: - What the agent tells of its gateway: in the log, as events, and to scripts

extension AgentProgram {
    /// What a line about the gateway is about: the gateway, and what is given here.
    func about(_ fields: KeyValuePairs<LogKey, (any CustomStringConvertible & Sendable)?>) -> Logger.Metadata {
        var metadata = Logger.Metadata.about([.gateway: self.settings.gateway])
        metadata.add(fields)
        return metadata
    }

    /// Writes a line that the gateway can cause, perhaps by how often it ends a link.
    func say(
        _ level: Logger.Level, _ kind: PeerLog.Kind, _ message: @autoclosure () -> String,
        _ metadata: @autoclosure () -> Logger.Metadata? = nil
    ) {
        self.log.write(level, kind, of: .gateway("\(self.settings.gateway)"), message(), metadata() ?? self.about([:]))
    }

    func print(_ event: AgentEvent) { self.printer.print(event, now: self.loop.now) }

    /// A name is reachable.
    func announce(_ wish: Wish, _ port: UInt16, _ address: String) {
        guard let index = self.settings.exposes.firstIndex(where: { $0.name == wish.name }) else { return }
        let backend = self.settings.exposes[index].backend
        if self.settings.version1 {
            let gateway = self.settings.gateway
            self.say(
                .info, .milestone,
                "'\(wish.name)' is registered at \(gateway), whose log tells the public port, and leads to \(backend)",
                self.about([.name: wish.name, .backend: backend.description]))
            self.print(.registered(name: wish.name.text, address: nil, port: nil, backend: backend.description))
            self.ready.registered(wish.name, at: "")
            self.control?.registered(wish.name, at: nil)
            return
        }
        let shown = Self.publicAddress(address, gateway: self.settings.gateway.host)
        self.say(
            .info, .milestone, "'\(wish.name)' is reachable at \(shown) and leads to \(backend)",
            self.about([
                .name: wish.name, .address: shown, .port: port == 0 ? nil : port, .backend: backend.description,
            ]))
        self.print(
            .registered(
                name: wish.name.text, address: shown, port: port == 0 ? nil : port, backend: backend.description))
        self.ready.registered(wish.name, at: shown)
        self.control?.registered(wish.name, at: shown)
    }

    /// A gateway that listens on all of its addresses is reached at the one that we have dialled.
    private static func publicAddress(_ address: String, gateway: String) -> String {
        guard let hostPort = HostPort(address), ["0.0.0.0", "::", "127.0.0.1", "::1"].contains(hostPort.host) else {
            return address
        }
        let isLocal = hostPort.host == "127.0.0.1" || hostPort.host == "::1"
        if isLocal, gateway != "localhost" { return address }
        return HostPort(host: gateway, port: hostPort.port).description
    }
}
