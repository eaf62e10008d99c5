internal import GatewayCore
internal import Journal
internal import Logging
internal import Reactor
internal import Records
internal import Relay
internal import Wire

// MARK: - Log lines about streams

extension WorkerLink {
    /// Logs the end of a visitor's stream. Stream records are made only here.
    func log(_ edge: Edge, _ end: StreamEnd, _ visit: Visit) {
        guard self.worker.settings.logsStreams else { return self.say(edge, end, visit) }
        let record = StreamRecord(
            edge, end, at: .gateway, link: self.link.ending, name: visit.name.text,
            agent: self.label.identity?.id, proxy: visit.visitor.proxy?.description)
        record.log(to: self.worker.log.logger, .about([.peer: self.label.peer]))
    }

    /// Used without records: logs streams that ended in order at debug level, and rate-limits the lines of others,
    /// because visitors can cause them.
    private func say(_ edge: Edge, _ end: StreamEnd, _ visit: Visit) {
        var subject: String { "visitor \(edge.visitor) of '\(visit.name)'" }
        func about(_ code: ErrorCode? = nil, _ error: String? = nil) -> Logger.Metadata {
            self.label.about([
                .name: visit.name, .visitor: visit.visitor.address, .proxy: visit.visitor.proxy, .code: code,
                .error: error,
            ])
        }
        let log = self.worker.log
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
        case .aborted: "aborted: the backend aborted the connection"
        default: "\(code)"
        }
    }
}
