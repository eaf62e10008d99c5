internal import Registry

/// Public ports of names that are gone, to which a proxy may lead visitors until all registrars have withdrawn the name:
/// another agent's name there would get them.
struct LeavingPorts {
    private var holders: [UInt16: [AgentIdentity: Int]] = [:]

    mutating func hold(_ port: UInt16, _ identity: AgentIdentity) {
        self.holders[port, default: [:]][identity, default: 0] += 1
    }

    mutating func release(_ port: UInt16, _ identity: AgentIdentity) {
        guard let count = self.holders[port]?[identity] else { return }
        self.holders[port]?[identity] = count > 1 ? count - 1 : nil
        if self.holders[port]?.isEmpty ?? true { self.holders[port] = nil }
    }

    /// Whether no other agent's visitors may come to it.
    func isFree(_ port: UInt16, for identity: AgentIdentity) -> Bool {
        self.holders[port]?.keys.allSatisfy { $0 == identity } ?? true
    }
}
