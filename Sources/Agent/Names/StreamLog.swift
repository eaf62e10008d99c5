internal import Journal
internal import Logging
internal import Reactor
internal import Records
internal import Relay
internal import Settings
internal import Wire

/// Logs the agent's streams.
struct StreamLog {
    private let log: PeerLog
    private let gateway: HostPort
    private let writesRecords: Bool

    init(log: PeerLog, settings: AgentSettings) {
        self.log = log
        self.gateway = settings.gateway
        self.writesRecords = settings.logsStreams
    }

    func opened(_ name: String, _ visitor: WireAddress) {
        self.say(.debug, name, "visitor \(visitor) of '\(name)'", self.about(name, visitor))
    }

    func backendFailed(_ name: String, _ visitor: WireAddress, _ backend: Endpoint, _ error: UVError) {
        self.say(
            .warning, name, "cannot reach the backend \(backend) of '\(name)': \(error); check that it runs",
            self.about(name, visitor, backend, error: error))
    }

    /// Call it when a stream has ended. Its record is made here and nowhere else.
    ///
    /// - Parameter link: why the link ended while the stream was open; nil if it did not.
    func ended(_ edge: Edge, _ end: StreamEnd, _ name: String, _ backend: Endpoint?, link: LinkEnd?) {
        if self.writesRecords {
            // This is a probe: the gateway resets it when it has its answer.
            if end == .resetByPeer(.none) { return }
            let record = StreamRecord(edge, end, at: .agent, link: link, name: name, backend: backend?.description)
            return record.log(to: self.log.logger, .about([.gateway: self.gateway]))
        }
        let visitor = edge.visitor
        switch end {
        case .finished:
            self.say(.debug, name, "visitor \(visitor) of '\(name)' done", self.about(name, visitor, backend))
        case .failed(let error):
            self.say(
                .info, name, "visitor \(visitor) of '\(name)': the backend failed: \(error)",
                self.about(name, visitor, backend, error: error))
        case .resetByPeer(let code):
            self.say(
                .debug, name, "visitor \(visitor) of '\(name)' was reset: \(code)",
                self.about(name, visitor, backend, code: code))
        case .abandoned(let code):
            self.say(
                .debug, name, "visitor \(visitor) of '\(name)' was cut: \(code)",
                self.about(name, visitor, backend, code: code))
        }
    }

    /// Writes a line that visitors caused.
    private func say(
        _ level: Logger.Level, _ name: String, _ message: @autoclosure () -> String,
        _ metadata: @autoclosure () -> Logger.Metadata
    ) {
        self.log.write(level, .visitors, of: .visitors(of: name), message(), metadata())
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
