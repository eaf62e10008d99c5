package import Wire

/// A public port to be found for a name.
package struct PortRequest: Equatable, Sendable {
    package let name: Name
    package let identity: AgentIdentity
    /// See ``GatewayMachine/Login/payer``.
    package let payer: String
    /// This one and no other; 0 for any.
    package let wanted: UInt16
    /// The name's former port, used if it is free.
    package let kept: UInt16?
    /// Where the agent's ports are; empty for all of the gateway's.
    package let allowed: [ClosedRange<UInt16>]
}
