package import Wire

/// Which public ports names may have.
package enum PortPolicy: Equatable, Sendable {
    /// Ports below this belong to the system (RFC 6335, 6) and are given only where a range names them.
    package static let firstUserPort: UInt16 = 1_024

    case any
    case range(ClosedRange<UInt16>)
    /// Names are reached by unix sockets only.
    case none

    /// Why no name may have a port; nil when one may.
    func refusal(of port: UInt16) -> String? {
        switch self {
        case .none: "the gateway has no public ports"
        case .range(let range) where !range.contains(port):
            "the port \(port) is not between \(range.lowerBound) and \(range.upperBound)"
        case .any where port < Self.firstUserPort: "the port \(port) is one of the system's"
        case .range, .any: nil
        }
    }
}

/// A public port to be found for a name.
package struct PortRequest: Equatable, Sendable {
    package let name: Name
    package let identity: AgentIdentity
    /// This one and no other; 0 for any.
    package let wanted: UInt16
    /// The one that the name had before, if it can be had again.
    package let kept: UInt16?
    /// Where the agent's ports are; empty for all of the gateway's.
    package let allowed: [ClosedRange<UInt16>]
}
