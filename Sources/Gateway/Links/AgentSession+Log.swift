internal import GatewayCore
internal import Journal
internal import Logging
internal import Reactor
internal import Records
internal import Relay
internal import Settings
internal import Wire

// MARK: - What the log says of a session

extension PeerSource {
    /// A connection before its login, by the source that limits and penalties count.
    static func stranger(_ peer: SocketAddress) -> Self { .stranger(Source(key: peer.source).text) }
}

extension AgentSession {
    /// What a line about this agent is about: the agent, and what is given here.
    func about(_ fields: KeyValuePairs<LogKey, (any CustomStringConvertible & Sendable)?>) -> Logger.Metadata {
        var metadata = Logger.Metadata.about([.peer: self.peer, .proxy: self.proxy, .agent: self.identity])
        metadata.add(fields)
        return metadata
    }

    /// Writes a line that this agent has caused, or a connection that is not yet an agent's.
    func log(
        _ level: Logger.Level, _ kind: PeerLog.Kind, _ message: @autoclosure () -> String,
        _ metadata: @autoclosure () -> Logger.Metadata? = nil
    ) {
        let source = self.identity.map { PeerSource.agent($0.id) } ?? .stranger(self.peer)
        self.gateway.peerLog.write(level, kind, of: source, message(), metadata() ?? self.about([:]))
    }

    /// Logs what this agent does not get, or loses.
    func warn(
        _ kind: PeerLog.Kind, _ message: @autoclosure () -> String, _ name: Name, _ code: ErrorCode
    ) {
        self.log(.warning, kind, "\(self.label): \(message())", self.about([.name: name, .code: code]))
    }

    // MARK: Streams

    /// A visitor's stream is over: the one place at which its record is made.
    func streamEnded(_ edge: Edge, _ end: StreamEnd, _ visit: Visit) {
        guard self.gateway.settings.logsStreams else { return self.say(edge, end, visit) }
        let record = StreamRecord(
            edge, end, at: .gateway, link: self.link.ending, name: visit.name.text,
            agent: self.identity?.id, proxy: visit.visitor.proxy?.description)
        record.log(to: self.gateway.logger, .about([.peer: self.peer]))
    }

    /// Without records: what was in order for those who look for it, and of the rest not all, as visitors could cause it
    /// without end.
    private func say(_ edge: Edge, _ end: StreamEnd, _ visit: Visit) {
        var subject: String { "visitor \(edge.visitor) of '\(visit.name)'" }
        func about(_ code: ErrorCode? = nil, _ error: String? = nil) -> Logger.Metadata {
            self.about([
                .name: visit.name, .visitor: visit.visitor.address, .proxy: visit.visitor.proxy, .code: code,
                .error: error,
            ])
        }
        let log = self.gateway.peerLog
        let source = PeerSource.visitors(of: visit.name.text)
        switch end {
        case .finished: log.write(.debug, .visitors, of: source, "\(subject) done", about())
        case .failed(let error):
            log.write(.debug, .visitors, of: source, "\(subject): \(error)", about(nil, error.description))
        case .resetByPeer(let code):
            log.write(.info, .visitors, of: source, "\(subject) reset: \(Self.explain(code))", about(code))
        case .abandoned(let code):
            log.write(.info, .visitors, of: source, "\(subject) reset by the gateway: \(code)", about(code))
        }
    }

    private static func explain(_ code: ErrorCode) -> String {
        switch code {
        case .refused: "refused: the agent's backend refuses connections"
        case .timeout: "timeout: the agent's backend does not answer"
        case .unreachable: "unreachable: the agent cannot find its backend"
        case .aborted: "aborted: the backend broke the connection off"
        default: "\(code)"
        }
    }
}
