internal import Reactor
package import Relay
package import Wire

/// What is known of a stream that has ended, for the log and for counters.
///
/// It is created from the edge when the stream ends, at one place in each program. It formats nothing until it is
/// shown.
package struct StreamRecord: Sendable {
    /// The program in which the edge was.
    package enum Place: Sendable { case gateway, agent }

    /// Which side ended a stream or, if the stream ended in order, ended first. The names are part of the log's
    /// interface.
    package enum Side: String, Sendable, CustomStringConvertible {
        case visitor, backend, agent, gateway

        package var description: String { self.rawValue }
    }

    package let place: Place
    package let name: String
    /// `.none` if unknown.
    package let visitor: WireAddress
    /// At the gateway: the agent's identity.
    package let agent: String?
    /// At the gateway: the trusted proxy through which the visitor came, if any.
    package let proxy: String?
    /// At the agent: the backend of the name.
    package let backend: String?
    package let end: StreamEnd
    package let endedBy: Side
    /// Bytes from the visitor that were passed to the link (at the gateway) or to the backend (at the agent), without a
    /// PROXY header.
    package let bytesToBackend: UInt64
    /// Bytes from the backend that were passed to the visitor (at the gateway) or to the link (at the agent).
    package let bytesToVisitor: UInt64
    /// Nanoseconds from the opening of the stream to the first byte from the backend; nil if there was none.
    package let firstByteNanoseconds: UInt64?
    package let durationNanoseconds: UInt64

    /// - Parameter link: why the link ended while the stream was open; nil if it did not.
    package init(
        _ edge: Edge, _ end: StreamEnd, at place: Place, link: LinkEnd?, name: String, agent: String? = nil,
        proxy: String? = nil, backend: String? = nil
    ) {
        self.place = place
        self.name = name
        self.visitor = edge.visitor
        self.agent = agent
        self.proxy = proxy
        self.backend = backend
        self.end = end
        self.endedBy = Self.side(end, first: edge.endedFirst, at: place, link: link)
        let first: UInt64
        switch place {
        case .gateway:
            (self.bytesToBackend, self.bytesToVisitor) = (edge.bytesFromSocket, edge.bytesToSocket)
            first = edge.firstFromLink
        case .agent:
            (self.bytesToBackend, self.bytesToVisitor) = (edge.bytesToSocket, edge.bytesFromSocket)
            first = edge.firstFromSocket
        }
        self.firstByteNanoseconds = first == 0 ? nil : first - edge.openedNanoseconds
        self.durationNanoseconds = EventLoop.nanoseconds - edge.openedNanoseconds
    }

    /// Why the stream ended, as a name that stays the same across versions.
    package var reason: String { self.end.slug }

    // MARK: - The side that ended it

    /// - Parameters:
    ///   - first: what ended first, if the stream ended in order.
    ///   - link: why the link ended while the stream was open; nil if it did not.
    package static func side(_ end: StreamEnd, first: EndingSide?, at place: Place, link: LinkEnd?) -> Side {
        let isGateway = place == .gateway
        /// `near` and `far`: the peers at this edge and at the other edge. `here` and `there`: the programs at the two
        /// ends of the link.
        let (near, far) = isGateway ? (Side.visitor, Side.backend) : (.backend, .visitor)
        let (here, there) = isGateway ? (Side.gateway, Side.agent) : (.agent, .gateway)
        switch end {
        case .finished:
            switch first {
            case .socket: return near
            case .link: return far
            case .here, nil: return here
            }
        case .failed: return near
        case .resetByPeer(.aborted): return far
        case .resetByPeer(let code): return isGateway && Self.isOfBackend(code) ? .backend : there
        case .abandoned(let code):
            if link.map(Self.isOfPeer) ?? false { return there }
            return !isGateway && Self.isOfBackend(code) ? .backend : here
        }
    }

    /// Codes with which an agent reports that it could not connect to the backend.
    private static func isOfBackend(_ code: ErrorCode) -> Bool {
        code == .refused || code == .timeout || code == .unreachable
    }

    /// Whether the peer caused the end of the link: it left, broke a rule, or did not respond.
    private static func isOfPeer(_ end: LinkEnd) -> Bool {
        switch end {
        case .closedByPeer, .failed, .goAway, .violation, .security, .otherProtocol: true
        case .ended(let code, _): [.dead, .stalled, .owed].contains(code)
        }
    }
}
