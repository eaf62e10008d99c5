internal import Control
internal import GatewayCore
internal import Glibc
internal import Journal
internal import Logging
internal import Modules
internal import Reactor
internal import Relay
internal import Secure
internal import Settings
internal import Tunnel
internal import Wire

/// What the gateway tells of itself.
extension GatewayServer {
    /// How it runs, in the log, when it has begun to listen.
    func announce(metrics place: SocketListener.Place?) {
        self.logger.info("pin \(self.certificate.identity.pin)")
        switch self.settings.authentication {
        case .byDefault(let path):
            if FileAccess.exists(path) {
                self.logger.info("agents are those of \(path)")
            } else {
                self.logger.info(
                    """
                    open to agents of this machine only; 'diglett-server agent add NAME' makes the first agent for \
                    others, --auth open would take any agent from anywhere
                    """)
            }
        case .file(let path): self.logger.info("agents are those of \(path)")
        case .hook(.exec(let exec)): self.logger.info("agents are judged by \(exec.command[0])")
        case .hook(.webhook(let webhook)): self.logger.info("agents are judged by \(webhook.shownURL)")
        case .open:
            self.logger.warning("open to every agent from everywhere: whoever reaches the port can expose names")
        }
        if let place {
            self.logger.info("metrics are shown on \(place)", metadata: .about([.address: place]))
        }
        if !self.settings.proxies.isEmpty {
            let networks = self.settings.proxies.map(\.description).joined(separator: ", ")
            self.logger.info(
                "visitors from \(networks) must begin with a PROXY header, agents from there may; it is believed")
        }
    }

    /// Links of agents that have logged in, and those that are over while visitors still get what came before.
    private var sessionsWithStreams: [AgentSession] { self.openSessions + self.deliveringSessions }

    /// Links of agents that have logged in.
    var openSessions: [AgentSession] {
        self.sessions.values.filter { $0.identity != nil && $0.link.isOpen }.sorted { $0.id < $1.id }
    }

    private func age(since start: UInt64) -> Int { Int((self.loop.now - start) / 1_000) }

    /// What the service manager is told.
    package var status: String {
        GatewayStatus(
            isDraining: self.isDraining, agents: self.openSessions.count, names: self.names.nameCount,
            streams: self.streamCount, waiting: self.names.listeners.waitingNameCount
        ).description
    }

    var report: GatewayReport {
        let sessions = self.openSessions
        return GatewayReport(
            version: Self.software, process: getpid(), state: self.isDraining ? "draining" : "running",
            seconds: self.age(since: self.stateBegan), listening: self.agentListeners.places,
            pin: self.certificate.identity.pin.description,
            certificate: self.certificate.report, authentication: self.settings.authentication.description,
            agents: Set(sessions.compactMap { $0.identity?.id }).count, links: sessions.count,
            names: self.names.nameCount, streams: self.streamCount, visitors: self.visitors.count,
            logLevel: "\(self.logger.logLevel)", registrars: self.names.registrars.reports)
    }

    var linkReports: [LinkReport] {
        self.openSessions.map { session in
            LinkReport(
                link: session.id, agent: session.identity?.id ?? "", peer: session.peer.description,
                protocol: session.link.protocolNumber, seconds: self.age(since: session.link.createdAt),
                names: session.exposures.map(\.name.text).sorted(), streams: session.link.streamCount)
        }
    }

    var exposureReports: [ExposureReport] {
        self.openSessions.flatMap { session in
            let streams = session.link.openEdges
            return session.exposures.map { exposure in
                let listeners = exposure.asPublic
                return ExposureReport(
                    name: exposure.name.text, agent: exposure.identity.id, link: session.id,
                    address: listeners.address?.description, socket: listeners.socket,
                    published: exposure.isPublished, seconds: self.age(since: exposure.since),
                    streams: streams.count { $0.exposure == exposure.number })
            }
        }.sorted { $0.name < $1.name }
    }

    var streamReports: [StreamReport] {
        self.sessionsWithStreams.flatMap { session in session.link.openEdges.map { session.report(of: $0) } }
            .sorted { $0.seconds > $1.seconds }
    }

    var penaltyReports: [BarReport] {
        self.admission.penalties(now: self.loop.now).map { source, milliseconds in
            BarReport(network: source.text, seconds: Int((milliseconds + 999) / 1_000))
        }.sorted { $0.network < $1.network }
    }

    var banReports: [BarReport] {
        self.bans.bans.map { ban in
            BarReport(
                network: ban.network.description,
                seconds: ban.until.map { until in Int((max(until, self.loop.now) - self.loop.now + 999) / 1_000) })
        }
    }

    /// Forgets the penalties of a network's sources; false when it has none.
    func forgive(_ network: Network) -> Bool { self.admission.forgive { $0.isReached(by: network) } }

    /// Closes what a network has open.
    func cut(_ network: Network) -> (links: Int, streams: Int) {
        var links = 0
        var streams = 0
        func bansAgent(_ session: AgentSession) -> Bool {
            [session.peer, session.proxy].contains { $0.map { network.bans(WireAddress($0)) } ?? false }
        }
        for session in Array(self.sessions.values) where session.link.isOpen {
            if bansAgent(session) {
                links += 1
                session.link.close(.ended(.denied, "its address was banned"))
            } else {
                streams += session.link.abortStreams(.denied) { network.bans($0.visitor) }
            }
        }
        for session in self.deliveringSessions {
            let isAgents = bansAgent(session)
            streams += session.link.abortStreams(.denied) { isAgents || network.bans($0.visitor) }
        }
        return (links, streams)
    }
}
