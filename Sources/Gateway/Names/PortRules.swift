internal import GatewayCore

/// The public ports that one agent's name may have.
struct PortRules {
    /// The gateway's rule.
    let policy: PortPolicy
    /// The agent's ports; empty for all of the gateway's.
    let allowed: [ClosedRange<UInt16>]
    /// Whether a proxy may still route visitors of another agent's former name to this port.
    let isLeaving: (UInt16) -> Bool

    func allows(_ port: UInt16) -> Bool {
        self.policy.allows(port) && (self.allowed.isEmpty || self.allowed.contains { $0.contains(port) })
    }

    func isFree(_ port: UInt16) -> Bool { !self.isLeaving(port) }

    /// Ranges to pick a port from; empty if the kernel may pick one.
    var candidates: [ClosedRange<UInt16>] {
        self.allowed.isEmpty ? self.policy.range.map { [$0] } ?? [] : self.allowed
    }
}
