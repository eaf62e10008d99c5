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

/// Status, for the log, the service manager and `ctl`.
extension GatewayServer {
    /// Logs the configuration once the gateway listens.
    func announce(metrics place: SocketListener.Place?) {
        self.logger.info("pin \(self.certificate.identity.pin)")
        switch self.settings.authentication {
        case .byDefault(let path):
            if FileAccess.exists(path) {
                self.logger.info("agents are listed in \(path)")
            } else {
                self.logger.info(
                    """
                    accepting only agents on this machine; add others with 'diglett-server agent add NAME --names PATTERN', or \
                    accept every agent with --auth open
                    """)
            }
        case .file(let path): self.logger.info("agents are listed in \(path)")
        case .hook(.exec(let exec)): self.logger.info("agents are authenticated by \(exec.command[0])")
        case .hook(.webhook(let webhook)): self.logger.info("agents are authenticated by \(webhook.shownURL)")
        case .open:
            self.logger.warning("accepting every agent (--auth open): anyone who reaches the port can expose names")
        }
        if let place {
            self.logger.info("serving metrics on \(place)", metadata: .about([.address: place]))
        }
        if !self.settings.proxies.isEmpty {
            let networks = self.settings.proxies.map(\.description).joined(separator: ", ")
            self.logger.info(
                "trusted proxies: \(networks); a PROXY header is required from visitors there and optional for agents")
        }
    }

    private func age(since start: UInt64) -> Int { Int((self.loop.now - start) / 1_000) }

    /// The status line for the service manager.
    package var status: String {
        GatewayStatus(
            isDraining: self.isDraining, agents: self.agents.openSessions.count, names: self.names.nameCount,
            streams: self.streamCount, waiting: self.names.listeners.waitingNameCount
        ).description
    }

    func report(_ census: WorkerCensus) -> GatewayReport {
        let sessions = self.agents.openSessions
        return GatewayReport(
            version: Self.software, process: getpid(), state: self.isDraining ? "draining" : "running",
            seconds: self.age(since: self.stateBegan), listening: self.acceptor.listeners.places,
            pin: self.certificate.identity.pin.description,
            certificate: self.certificate.report, authentication: self.settings.authentication.description,
            agents: Set(sessions.compactMap(\.label.identity)).count, links: sessions.count,
            names: self.names.nameCount, streams: census.streamCount, visitors: census.figures.visitors,
            logLevel: "\(self.logger.logLevel)", registrars: self.names.registrars.reports)
    }

    func linkReports(_ census: WorkerCensus) -> [LinkReport] {
        let names = Dictionary(grouping: self.names.held, by: \.link)
        return self.agents.openSessions.map { session in
            LinkReport(
                link: session.id, agent: session.label.identity?.id ?? "", peer: session.label.peer.description,
                protocol: session.isVersion1 ? 1 : 2, seconds: self.age(since: session.createdAt),
                away: session.detachedSince.map { self.age(since: $0) },
                names: names[session.id, default: []].map(\.name.text).sorted(),
                streams: census.streamsByLink[session.id] ?? 0)
        }
    }

    func exposureReports(_ census: WorkerCensus) -> [ExposureReport] {
        self.names.held.filter { self.agents[$0.link]?.isOpen ?? false }.map { name in
            ExposureReport(
                name: name.name.text, agent: name.identity.id, link: name.link, address: name.address?.description,
                socket: name.listeners.socket, published: name.isPublished, seconds: self.age(since: name.since),
                streams: census.streamsByName[name.id] ?? 0)
        }.sorted { $0.name < $1.name }
    }

    func streamReports(_ census: WorkerCensus) -> [StreamReport] { census.streams.sorted { $0.seconds > $1.seconds } }

    var penaltyReports: [BarReport] {
        self.agents.admission.penalties(now: self.loop.now).map { source, milliseconds in
            BarReport(network: source.text, seconds: Int((milliseconds + 999) / 1_000))
        }.sorted { $0.network < $1.network }
    }

    var banReports: [BarReport] {
        self.agents.bans.bans.map { ban in
            BarReport(
                network: ban.network.description,
                seconds: ban.until.map { until in Int((max(until, self.loop.now) - self.loop.now + 999) / 1_000) })
        }
    }

    /// Drops the penalties of a network's sources; returns false without one.
    func forgive(_ network: Network) -> Bool { self.agents.admission.forgive { $0.isReached(by: network) } }
}
