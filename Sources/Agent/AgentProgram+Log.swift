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

    /// An address has accepted a connection and not answered: logged once until the next link.
    func reportSilence(of address: SocketAddress) {
        guard !self.hasReportedSilence else { return }
        self.hasReportedSilence = true
        self.logger.info(
            """
            \(address) has taken the connection and not answered yet; waiting: it may be slow, or let this address \
            wait after wrong logins or connections without a login
            """, metadata: self.about([:]))
    }

    func print(_ event: AgentEvent) { self.printer.print(event, now: self.loop.now) }

    /// A name is registered.
    ///
    /// - Parameter text: where the gateway says visitors find the name.
    func announce(_ wish: Wish, _ port: UInt16, _ text: String) {
        guard let index = self.settings.exposes.firstIndex(where: { $0.name == wish.name }) else { return }
        let backend = self.settings.exposes[index].backend
        let gateway = self.settings.gateway
        let port = port == 0 ? nil : port
        var address: String?
        var problem: String?
        if self.settings.version1 {
            self.say(
                .info, .milestone,
                "'\(wish.name)' is registered at \(gateway), whose log tells the public port, and leads to \(backend)",
                self.about([.name: wish.name, .backend: backend.description]))
        } else if let known = PublicAddress(text), known.isLoopback, !self.isGatewayLocal {
            let place = "reachable at \(known) on the gateway's machine only"
            let advice = "set 'expose-bind' there to open it, or 'public-url' if a proxy there leads to it"
            problem = "\(place); \(advice)"
            self.say(
                .warning, .milestone, "'\(wish.name)' is \(place) and leads to \(backend); \(advice)",
                self.about([.name: wish.name, .port: port, .backend: backend.description]))
        } else if let known = PublicAddress(text) {
            let shown = known.seen(from: gateway.host)
            address = shown
            self.say(
                .info, .milestone, "'\(wish.name)' is reachable at \(shown) and leads to \(backend)",
                self.about([
                    .name: wish.name, .address: shown, .port: port, .backend: backend.description,
                ]))
        } else {
            let sent = text.isEmpty ? "no address" : "'\(text)', which is not \(PublicAddress.form)"
            let reason = "the gateway sent \(sent): no address is passed on; the gateway's operator can set public-url"
            problem = reason
            self.say(
                .warning, .milestone, "'\(wish.name)' is registered and leads to \(backend), but \(reason)",
                self.about([.name: wish.name, .port: port, .backend: backend.description]))
        }
        if let backend = self.backends[wish.name] { self.backendCheck.registered(wish.name, backend) }
        self.print(
            .registered(
                name: wish.name.text, address: address, port: port, backend: backend.description, problem: problem))
        self.ready.registered(wish.name, at: address)
        self.control?.registered(wish.name, at: address)
    }
}
