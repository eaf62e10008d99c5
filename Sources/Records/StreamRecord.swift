internal import Reactor
package import Relay
package import Wire

/// What is known of a stream when it is over: for the log, and for whoever counts.
///
/// Made from the edge at the end, in one place at each program; it costs no formatting until it is shown.
package struct StreamRecord: Sendable {
    /// The program in which the edge was.
    package enum Place: Sendable { case gateway, agent }

    /// Who ended a stream, or, if it ended in order, who began to. The names are part of the log's interface.
    package enum Side: String, Sendable, CustomStringConvertible {
        case visitor, backend, agent, gateway

        package var description: String { self.rawValue }
    }

    package let place: Place
    package let name: String
    /// `.none` when it is not known.
    package let visitor: WireAddress
    /// At the gateway: the agent's identity.
    package let agent: String?
    /// At the gateway: the trusted proxy that the visitor came through, if it did.
    package let proxy: String?
    /// At the agent: what the name leads to.
    package let backend: String?
    package let end: StreamEnd
    package let endedBy: Side
    /// Bytes of the visitor that were given to the link (at the gateway) or to the backend (at the agent); without a
    /// PROXY header.
    package let bytesToBackend: UInt64
    /// Bytes of the backend that were given to the visitor (at the gateway) or to the link (at the agent).
    package let bytesToVisitor: UInt64
    /// From the opening of the stream to the first byte of the backend, in nanoseconds; nil: there was none.
    package let firstByteNanoseconds: UInt64?
    package let durationNanoseconds: UInt64

    /// - Parameter link: why the link ends under the stream; nil: it does not.
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

    /// Why it ended, by a name that stays the same.
    package var reason: String { self.end.slug }

    // MARK: - Who ended it

    /// - Parameters:
    ///   - first: what began the end, where it was in order.
    ///   - link: why the link ends under the stream; nil: it does not.
    package static func side(_ end: StreamEnd, first: EndingSide?, at place: Place, link: LinkEnd?) -> Side {
        let isGateway = place == .gateway
        /// Whose socket the edge has, whose is at the other edge, and which program is at the other end of the link.
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

    /// Codes by which an agent tells that it could not connect the backend.
    private static func isOfBackend(_ code: ErrorCode) -> Bool {
        code == .refused || code == .timeout || code == .unreachable
    }

    /// Whether the other end of the link is why the link is over: it left, or broke a rule.
    private static func isOfPeer(_ end: LinkEnd) -> Bool {
        switch end {
        case .closedByPeer, .failed, .goAway, .violation, .security, .otherProtocol: true
        case .ended(let code, _): [.dead, .stalled, .owed].contains(code)
        }
    }
}
