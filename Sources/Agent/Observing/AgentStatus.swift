package import AgentCore
internal import Journal
package import Settings

/// The state of the agent in one line, for people.
package struct AgentStatus: CustomStringConvertible {
    package let gateway: HostPort
    package let progress: AgentMachine.Progress
    /// Streams that must finish before the agent exits; nil if it is not stopping.
    package let draining: Int?

    package init(gateway: HostPort, progress: AgentMachine.Progress, draining: Int? = nil) {
        self.gateway = gateway
        self.progress = progress
        self.draining = draining
    }

    package var description: String {
        if let streams = self.draining { return "draining: \(counted(streams, "stream")) left" }
        switch self.progress {
        case .connecting: return "connecting to gateway \(self.gateway)"
        case .waiting: return "no link to gateway \(self.gateway), retrying"
        case .connected(let names):
            return "connected to gateway \(self.gateway), \(counted(names, "name")) exposed"
        }
    }
}
