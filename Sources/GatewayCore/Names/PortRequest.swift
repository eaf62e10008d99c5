package import Wire

/// A request for a public port for a name.
package struct PortRequest: Equatable, Sendable {
    package let name: Name
    package let identity: AgentIdentity
    /// See ``GatewayMachine/Login/payer``.
    package let payer: String
    /// The port that the agent requested, the only one it accepts; 0 for any.
    package let wanted: UInt16
    /// The port that the name had before; used if it is free.
    package let kept: UInt16?
    /// The ports that the agent may have; empty for all of the gateway's.
    package let allowed: [ClosedRange<UInt16>]
}
