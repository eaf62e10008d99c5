package import AgentCore
internal import Journal
package import Settings

/// What the agent is doing, in a line for people.
package struct AgentStatus: CustomStringConvertible {
    package let gateway: HostPort
    package let progress: AgentMachine.Progress
    /// Streams that are waited for before the end; nil: it does not end.
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
