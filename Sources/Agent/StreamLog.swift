internal import Journal
internal import Logging
internal import Reactor
internal import Records
internal import Relay
internal import Settings
internal import Timing
internal import Wire

/// What the agent's log says of streams.
struct StreamLog {
    private let logger: Logger
    private let gateway: HostPort
    private let writesRecords: Bool
    /// Visitors could cause these lines without end.
    private var noise: NoiseLimit

    init(logger: Logger, settings: AgentSettings, now: Milliseconds) {
        self.logger = logger
        self.gateway = settings.gateway
        self.writesRecords = settings.logsStreams
        self.noise = NoiseLimit(now: now)
    }

    func opened(_ name: String, _ visitor: WireAddress) {
        self.logger.debug("visitor \(visitor) of '\(name)'", metadata: self.about(name, visitor))
    }

    mutating func backendFailed(
        _ name: String, _ visitor: WireAddress, _ backend: Endpoint, _ error: UVError, now: Milliseconds
    ) {
        guard self.noise.take(now: now) else { return }
        self.logger.warning(
            "the backend \(backend) of '\(name)' cannot be reached: \(error); is it running?",
            metadata: self.about(name, visitor, backend, error: error))
    }

    /// A stream is over: the one place at which its record is made.
    ///
    /// - Parameter link: why the link ends under the stream; nil: it does not.
    mutating func ended(
        _ edge: Edge, _ end: StreamEnd, _ name: String, _ backend: Endpoint?, link: LinkEnd?, now: Milliseconds
    ) {
        if self.writesRecords {
            // A probe, which the gateway takes back when it has its answer.
            if end == .resetByPeer(.none) { return }
            let record = StreamRecord(edge, end, at: .agent, link: link, name: name, backend: backend?.description)
            return record.log(to: self.logger, .about([.gateway: self.gateway]))
        }
        let visitor = edge.visitor
        switch end {
        case .finished:
            self.logger.debug("visitor \(visitor) of '\(name)' done", metadata: self.about(name, visitor, backend))
        case .failed(let error):
            guard self.noise.take(now: now) else { return }
            self.logger.info(
                "visitor \(visitor) of '\(name)': the backend failed: \(error)",
                metadata: self.about(name, visitor, backend, error: error))
        case .resetByPeer(let code):
            self.logger.debug(
                "visitor \(visitor) of '\(name)' was reset: \(code)",
                metadata: self.about(name, visitor, backend, code: code))
        case .abandoned(let code):
            self.logger.debug(
                "visitor \(visitor) of '\(name)' was cut: \(code)",
                metadata: self.about(name, visitor, backend, code: code))
        }
    }

    private func about(
        _ name: String, _ visitor: WireAddress, _ backend: Endpoint? = nil, code: ErrorCode? = nil,
        error: UVError? = nil
    ) -> Logger.Metadata {
        .about([
            .gateway: self.gateway, .name: name, .visitor: visitor == .none ? nil : visitor,
            .backend: backend?.description, .code: code, .error: error,
        ])
    }
}
