internal import GatewayCore
internal import Journal
internal import Logging
internal import Reactor
internal import Secure

/// Accepts connections to the agent port, and hands the admitted ones to a worker.
final class AgentAcceptor {
    let listeners: AgentListeners
    private let agents: AgentSessions
    /// Connections refused before they reach a worker.
    private let refused: RefusedAgents

    init(_ listeners: AgentListeners, agents: AgentSessions) {
        self.listeners = listeners
        self.agents = agents
        self.refused = RefusedAgents(atMost: agents.parts.plan.refused)
    }

    /// Call about once a second.
    func tick() { self.refused.tick() }

    /// Stops listening.
    func close() { self.listeners.close() }

    /// Closes refused connections without waiting for the peers to read the alert.
    func closeRefused() { self.refused.close() }

    private func accepted(_ stream: SocketStream, from peer: SocketAddress, isVersion1: Bool) -> ArrivalResult {
        func refuse(_ result: ArrivalResult, _ alert: TLSAlert) -> ArrivalResult {
            self.refused.refuse(stream, alert, isVersion1: isVersion1)
            return result
        }
        guard !self.agents.bans.contains(peer) else { return refuse(.banned, .accessDenied) }
        guard self.agents.hasRoom() else { return refuse(.noRoom, .internalError) }
        guard let session = self.agents.admit(peer, at: stream.localAddress, isVersion1: isVersion1) else {
            return refuse(.sourceFull, .internalError)
        }
        do throws(UVError) { self.agents.hand(session, try stream.giveAway()) } catch {
            self.agents.remove(session)
            self.agents.parts.log.write(
                .error, .strangers, by: session.label, "\(peer): \(error)", session.label.about([.error: error]))
        }
        return .admitted
    }
}

extension AgentAcceptor: SocketListenerDelegate {
    func listener(_ listener: SocketListener, didAccept stream: SocketStream) {
        guard let peer = stream.peerAddress else {
            self.agents.parts.metrics.arrived(.gone)
            return stream.reset()
        }
        let isVersion1 = self.listeners.isVersion1(listener)
        self.agents.parts.metrics.arrived(self.accepted(stream, from: peer, isVersion1: isVersion1))
    }

    func listener(_ listener: SocketListener, didFail error: UVError) {
        self.agents.parts.log.write(
            .info, .strangers, of: .unknownStrangers, "an agent was not accepted: \(error)",
            .about([.error: error]))
    }
}
