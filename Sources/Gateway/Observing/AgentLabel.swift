internal import GatewayCore
internal import Journal
internal import Logging
internal import Reactor

/// How logs name an agent, or a connection that has not logged in.
struct AgentLabel: Sendable, CustomStringConvertible {
    /// The agent's address: of the connection, or from a trusted proxy's header.
    var peer: SocketAddress
    /// The trusted proxy between the agent and the gateway.
    var proxy: SocketAddress?
    /// Nil before login.
    var identity: AgentIdentity?

    init(peer: SocketAddress) { self.peer = peer }

    var description: String { self.identity.map { "agent \($0) at \(self.peer)" } ?? "\(self.peer)" }

    /// The source to which log lines are attributed for rate limiting.
    var source: PeerSource { self.identity.map { .agent($0.id) } ?? .stranger(self.peer) }

    /// The metadata of a line about this agent, plus `fields`.
    func about(_ fields: KeyValuePairs<LogKey, (any CustomStringConvertible & Sendable)?> = [:]) -> Logger.Metadata {
        var metadata = Logger.Metadata.about([.peer: self.peer, .proxy: self.proxy, .agent: self.identity])
        metadata.add(fields)
        return metadata
    }
}

extension PeerSource {
    /// An unauthenticated connection, by the address that limits and penalties count.
    static func stranger(_ peer: SocketAddress) -> Self { .stranger(Source(key: peer.source).text) }
}

extension PeerLog {
    /// Logs a line caused by an agent or an unauthenticated connection.
    func write(
        _ level: Logger.Level, _ kind: Kind, by agent: AgentLabel, _ message: @autoclosure () -> String,
        _ metadata: @autoclosure () -> Logger.Metadata? = nil
    ) {
        self.write(level, kind, of: agent.source, message(), metadata() ?? agent.about())
    }
}
