internal import Journal

/// A one-line summary of the gateway's state, for people.
package struct GatewayStatus: CustomStringConvertible {
    package var isDraining: Bool
    package var agents: Int
    package var names: Int
    package var streams: Int
    /// Names of the previous run whose agents have not reconnected yet.
    package var waiting: Int

    package init(isDraining: Bool = false, agents: Int = 0, names: Int = 0, streams: Int = 0, waiting: Int = 0) {
        self.isDraining = isDraining
        self.agents = agents
        self.names = names
        self.streams = streams
        self.waiting = waiting
    }

    package var description: String {
        if self.isDraining { return "draining: \(counted(self.streams, "stream")) left" }
        let present = [(self.agents, "agent"), (self.names, "name"), (self.streams, "stream")]
        let text = present.map { counted($0, $1) }.joined(separator: ", ")
        guard self.waiting > 0 else { return text }
        return "\(text); \(counted(self.waiting, "name")) of the previous run not yet restored"
    }
}
