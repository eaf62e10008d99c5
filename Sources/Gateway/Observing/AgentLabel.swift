internal import GatewayCore
internal import Journal
internal import Logging
internal import Reactor

/// What the log says of an agent, or of a connection that is not yet an agent's.
struct AgentLabel: Sendable, CustomStringConvertible {
    /// The agent's address: of the connection, or of a trusted proxy's header.
    var peer: SocketAddress
    /// The trusted proxy between it and us.
    var proxy: SocketAddress?
    /// Nil before the login.
    var identity: AgentIdentity?

    init(peer: SocketAddress) { self.peer = peer }

    var description: String { self.identity.map { "agent \($0) at \(self.peer)" } ?? "\(self.peer)" }

    /// The cause of lines about it.
    var source: PeerSource { self.identity.map { .agent($0.id) } ?? .stranger(self.peer) }

    /// What a line about it is about: the agent, and what is given here.
    func about(_ fields: KeyValuePairs<LogKey, (any CustomStringConvertible & Sendable)?> = [:]) -> Logger.Metadata {
        var metadata = Logger.Metadata.about([.peer: self.peer, .proxy: self.proxy, .agent: self.identity])
        metadata.add(fields)
        return metadata
    }
}

extension PeerSource {
    /// A connection before its login, by the source that limits and penalties count.
    static func stranger(_ peer: SocketAddress) -> Self { .stranger(Source(key: peer.source).text) }
}

extension PeerLog {
    /// Writes a line that an agent has caused, or a connection that is not yet an agent's.
    func write(
        _ level: Logger.Level, _ kind: Kind, by agent: AgentLabel, _ message: @autoclosure () -> String,
        _ metadata: @autoclosure () -> Logger.Metadata? = nil
    ) {
        self.write(level, kind, of: agent.source, message(), metadata() ?? agent.about())
    }
}
