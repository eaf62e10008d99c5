internal import GatewayCore

/// Which public ports one agent's name may have.
struct PortRules {
    /// The gateway's.
    let policy: PortPolicy
    /// The agent's; empty for all of the gateway's.
    let allowed: [ClosedRange<UInt16>]
    /// Whether visitors of other agents' former names may still be led to a port.
    let isLeaving: (UInt16) -> Bool

    func allows(_ port: UInt16) -> Bool {
        self.policy.allows(port) && (self.allowed.isEmpty || self.allowed.contains { $0.contains(port) })
    }

    func isFree(_ port: UInt16) -> Bool { !self.isLeaving(port) }

    /// Where to look for one; empty where the system may choose.
    var candidates: [ClosedRange<UInt16>] {
        self.allowed.isEmpty ? self.policy.range.map { [$0] } ?? [] : self.allowed
    }
}
