/// The public ports that names may use.
package enum PortPolicy: Equatable, Sendable {
    /// Lower ports are system ports (RFC 6335, section 6): they are assigned only if a configured range includes them.
    package static let firstUserPort: UInt16 = 1_024

    case any
    case range(ClosedRange<UInt16>)
    /// No TCP ports: names are reachable through unix sockets only.
    case none

    /// Whether a name may have this port.
    package func allows(_ port: UInt16) -> Bool { self.refusal(of: port) == nil }

    /// The range to pick a port from; nil if the kernel may pick one.
    package var range: ClosedRange<UInt16>? {
        if case .range(let range) = self { range } else { nil }
    }

    /// Why this port is refused; nil if it is allowed.
    func refusal(of port: UInt16) -> String? {
        switch self {
        case .none: "the gateway has no public ports"
        case .range(let range) where !range.contains(port):
            "the port \(port) is not between \(range.lowerBound) and \(range.upperBound)"
        case .any where port < Self.firstUserPort:
            "the port \(port) is below 1024, and expose-ports does not contain it"
        case .range, .any: nil
        }
    }
}
