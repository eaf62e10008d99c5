internal import Metrics
internal import Modules
internal import Relay
internal import Wire

extension GatewayMetrics {
    static let contentType = Exposition.contentType

    /// All metrics in Prometheus' text format. `docs/monitoring.md` lists them.
    func exposition(_ figures: GatewayFigures, _ process: ProcessFigures, isPerName: Bool) -> [UInt8] {
        var text = Exposition()
        text.begin("diglett_build_info", .gauge, "The program that runs; the value is always 1.")
        text.sample(1, ["version": Release.version])
        text.gauge(
            "diglett_certificate_expiry_timestamp_seconds",
            "Until when the certificate is valid, since 1970; +Inf when agents look at its key only.",
            seconds: figures.certificateExpires.map(Double.init) ?? .infinity)
        self.writeAgents(&text, figures)
        self.writeNames(&text, figures)
        self.writeVisitors(&text, figures)
        self.writeTimes(&text, figures)
        if isPerName { Self.writeTraffic(&text, figures) }
        self.writeLimits(&text, figures)
        self.write(&text, process)
        return text.text
    }

    private func writeAgents(_ text: inout Exposition, _ figures: GatewayFigures) {
        text.begin("diglett_links", .gauge, "Links of agents that are logged in, by version of the protocol.")
        text.sample(figures.links.version1, ["protocol": "1"])
        text.sample(figures.links.version2, ["protocol": "2"])
        text.gauge(
            "diglett_links_detached", "Links that wait for their agents to connect again.", figures.detachedLinks)
        text.gauge("diglett_agents", "Agents that have a link, by their identities.", figures.agents)
        text.gauge("diglett_strangers", "Connections to the agent port that have not logged in.", figures.strangers)
        text.gauge(
            "diglett_penalties", "Sources that have a penalty to serve for what strangers did.", figures.penalties)
        text.gauge("diglett_bans", "Networks that the operator keeps out.", figures.bans)
        text.begin(
            "diglett_agent_connections_total", .counter, "Connections to the agent port, by what became of them.")
        for (result, count) in self.arrivals.all { text.sample(count.value, ["result": result.rawValue]) }
        text.begin("diglett_logins_total", .counter, "Logins of agents, by what became of them.")
        for (result, count) in self.logins.all { text.sample(count.value, ["result": result]) }
        text.begin(
            "diglett_links_closed_total", .counter, "Links that were logged in and ended, by who ended them and why.")
        for (ending, count) in self.linksClosed.all { text.sample(count.value, Self.labels(ending)) }
        text.begin(
            "diglett_links_detached_total", .counter,
            "Connections that links lost and that agents may replace, by who ended them and why.")
        for (ending, count) in self.linksDetached.all { text.sample(count.value, Self.labels(ending)) }
        text.counter(
            "diglett_links_resumed_total", "Links that their agents continued on another connection.",
            self.linksResumed.value)
        text.counter(
            "diglett_link_resent_bytes_total", "Bytes sent again to agents that continued a link.",
            figures.worker.relay.resent.value)
        text.begin(
            "diglett_strangers_closed_total", .counter,
            "Connections that ended before a login, by who ended them and why.")
        for (ending, count) in self.strangersClosed.all { text.sample(count.value, Self.labels(ending)) }
        text.gauge(
            "diglett_congested_links", "Links whose sockets hold bytes that could not be sent yet.",
            figures.worker.relay.congestedLinks)
    }

    private func writeNames(_ text: inout Exposition, _ figures: GatewayFigures) {
        text.begin("diglett_names", .gauge, "Names that agents hold: public, or waiting for a registrar or a backend.")
        text.sample(figures.names.published, ["state": "public"])
        text.sample(figures.names.waiting, ["state": "waiting"])
        text.counter("diglett_names_registered_total", "Names that were given to agents.", self.namesRegistered.value)
        text.begin("diglett_names_refused_total", .counter, "Requests for names that were refused, by reason.")
        for (code, count) in self.namesRefused.all { text.sample(count.value, ["code": code]) }
        text.begin("diglett_registrar_failing", .gauge, "Whether the last action of the registrar failed.")
        for one in figures.registrars { text.sample(one.isFailing ? 1 : 0, ["registrar": one.name]) }
        text.begin("diglett_registrar_failures_total", .counter, "Actions of registrars that failed, tries included.")
        for one in figures.registrars { text.sample(one.figures.failures.value, ["registrar": one.name]) }
    }

    private func writeVisitors(_ text: inout Exposition, _ figures: GatewayFigures) {
        text.gauge(
            "diglett_visitors", "Visitors, and connections of proxies whose header is awaited.", figures.worker.visitors
        )
        text.gauge("diglett_streams", "Streams of visitors.", figures.worker.relay.traffic.streams)
        text.begin("diglett_visitors_total", .counter, "Connections of visitors, by what became of them.")
        for (result, count) in figures.worker.visitorResults.all { text.sample(count.value, ["result": result.slug]) }
        text.begin("diglett_streams_closed_total", .counter, "Streams that ended, by who ended them and why.")
        for (ending, count) in figures.worker.streamsClosed.all { text.sample(count.value, Self.labels(ending)) }
        text.begin("diglett_bytes_total", .counter, "Bytes of visitors and backends that were carried.")
        Self.write(&text, figures.worker.relay.traffic)
    }

    private func writeTimes(_ text: inout Exposition, _ figures: GatewayFigures) {
        text.histogram(
            "diglett_stream_open_seconds", "From a visitor's arrival until its agent had connected the backend.",
            figures.worker.relay.opening)
        text.histogram(
            "diglett_stream_first_byte_seconds",
            "From a visitor's arrival until the backend's first byte was sent to it.",
            figures.worker.relay.firstByte)
        text.histogram(
            "diglett_link_queue_delay_seconds", "How long bytes waited as the link's socket took no more.",
            figures.worker.relay.queueDelay)
        text.histogram(
            "diglett_link_pause_seconds", "How long links were without a connection until they continued.",
            figures.worker.relay.pause)
        text.histogram("diglett_loop_lag_seconds", "How late the timer of each second fired.", self.loopLag)
        text.begin("diglett_authenticator_duration_seconds", .histogram, "What authenticators took to answer.")
        for question in Question.allCases {
            if let histogram = self.answers[question] { text.sample(histogram, ["question": question.rawValue]) }
        }
        text.begin("diglett_registrar_duration_seconds", .histogram, "What actions of registrars took.")
        for one in figures.registrars { text.sample(one.figures.duration, ["registrar": one.name]) }
    }

    private static func writeTraffic(_ text: inout Exposition, _ figures: GatewayFigures) {
        let all = figures.worker.traffic.sorted { $0.name.text < $1.name.text }
        text.begin("diglett_name_streams", .gauge, "Streams of visitors of a name.")
        for (name, traffic) in all { text.sample(traffic.streams, ["name": name.text]) }
        text.begin(
            "diglett_name_bytes_total", .counter, "Bytes that were carried for a name since it was registered.")
        for (name, traffic) in all { Self.write(&text, traffic, name: name.text) }
    }

    private func writeLimits(_ text: inout Exposition, _ figures: GatewayFigures) {
        text.gauge(
            "diglett_granted_bytes", "Bytes that peers may make the gateway hold, or do.", figures.worker.granted.used)
        text.gauge("diglett_granted_limit_bytes", "How many that may be in all.", figures.worker.granted.limit)
        text.begin("diglett_limit", .gauge, "How many there may be at once.")
        let plan = figures.plan
        for (what, atMost) in [
            ("agents", plan.agents), ("strangers", plan.strangers), ("names", plan.names), ("visitors", plan.visitors),
        ] {
            text.sample(atMost, ["of": what])
        }
        text.begin(
            "diglett_limit_hits_total", .counter, "How often limits without a counter of their own were reached.")
        // Registrars have their own counter.
        let abandonments = figures.registrars.reduce(0) { $0 + $1.figures.abandonments.value }
        for (limit, count) in figures.worker.relay.limitHits.all {
            let own = self.limitHits[limit] ?? 0
            text.sample(count.value + own + (limit == .withdrawals ? abandonments : 0), ["limit": limit.rawValue])
        }
    }

    private func write(_ text: inout Exposition, _ process: ProcessFigures) {
        text.begin("process_cpu_seconds_total", .counter, "Processor time of the program and the kernel for it.")
        text.sample(seconds: process.cpuSeconds)
        text.gauge("process_resident_memory_bytes", "Memory that is resident.", process.residentBytes)
        text.gauge("process_virtual_memory_bytes", "Memory that is mapped.", process.virtualBytes)
        text.gauge("process_open_fds", "Open file descriptors.", process.openDescriptors)
        text.gauge("process_max_fds", "How many file descriptors may be open.", process.maxDescriptors)
        text.gauge("process_start_time_seconds", "When the program began, since 1970.", seconds: self.processStart)
    }

    private static func labels(_ ending: Ending) -> Exposition.Labels {
        ["side": ending.side.rawValue, "reason": ending.reason]
    }

    private static func write(_ text: inout Exposition, _ traffic: Traffic) {
        text.sample(traffic.toBackend.value, ["direction": "to_backend"])
        text.sample(traffic.toVisitor.value, ["direction": "to_visitor"])
    }

    private static func write(_ text: inout Exposition, _ traffic: Traffic, name: String) {
        text.sample(traffic.toBackend.value, ["name": name, "direction": "to_backend"])
        text.sample(traffic.toVisitor.value, ["name": name, "direction": "to_visitor"])
    }
}
