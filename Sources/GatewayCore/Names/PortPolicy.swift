/// Which public ports names may have.
package enum PortPolicy: Equatable, Sendable {
    /// Ports below this belong to the system (RFC 6335, 6) and are given only where a range names them.
    package static let firstUserPort: UInt16 = 1_024

    case any
    case range(ClosedRange<UInt16>)
    /// Names are reached by unix sockets only.
    case none

    /// Whether names may have a port.
    package func allows(_ port: UInt16) -> Bool { self.refusal(of: port) == nil }

    /// Where to look for a port; nil where the system may choose.
    package var range: ClosedRange<UInt16>? {
        if case .range(let range) = self { range } else { nil }
    }

    /// Why no name may have a port; nil when one may.
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
