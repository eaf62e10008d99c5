package import Reactor
package import Relay
package import Secure
package import Tunnel
package import Wire

/// One end of a link, driven by a test. It records the reports of the link and their order.
package final class TestLink: LinkSessionDelegate {
    package enum Report: Equatable { case ending, ended, emptied }

    package let link: LinkSession
    package let budget = ByteBudget(limit: 16 << 20)
    package private(set) var reports: [Report] = []
    /// How the streams of this link ended.
    package private(set) var ends: [StreamEnd] = []
    package private(set) var end: LinkEnd?
    /// The login that the agent sends; nil at the gateway's end.
    private let login: Login?
    /// Reacts to an event of the machine.
    private let react: (LinkSession, LinkEvent) -> Void
    /// Also called for each stream that has ended.
    package var streamEnded: ((Edge) -> Void)?

    /// How often the connection was lost, and what to do then.
    package private(set) var detachCount = 0
    package var detached: ((LinkEnd) -> Void)?

    package var isEmpty: Bool { self.reports.contains(.emptied) }

    /// - Parameters:
    ///   - offersResumption: whether HELLO says that the link can be resumed.
    ///   - react: called for every event except `.needMore`, `.data` and `.reset`.
    package init(
        _ socket: SocketStream, _ version: LinkProtocol, _ role: Role, _ buffers: RelayBuffers, login: Login? = nil,
        offersResumption: Bool = true,
        react: @escaping (LinkSession, LinkEvent) -> Void
    ) throws {
        self.login = login
        self.react = react
        let transport = try LinkTransport(
            socket: socket, version: version, role: role, handshakeDeadline: 10_000, budget: self.budget,
            buffers: buffers)
        var limits = LinkLimits()
        if !offersResumption { limits.resumeWindow = 0 }
        self.link = LinkSession(transport: transport, limits: limits, budget: self.budget, software: "test/1")
        self.link.delegate = self
        self.link.start()
    }

    package func link(_ link: LinkSession, didSecure peer: ChannelPeer) -> PeerVerdict { .proceed(self.login) }

    package func link(_ link: LinkSession, did event: LinkEvent) {
        switch event {
        case .needMore, .data, .reset: break
        default: self.react(link, event)
        }
    }

    package func link(_ link: LinkSession, streamEnded edge: Edge, _ end: StreamEnd) {
        self.ends.append(end)
        self.streamEnded?(edge)
    }
    package func linkDidDetach(_ link: LinkSession, _ end: LinkEnd) {
        self.detachCount += 1
        self.detached?(end)
    }
    package func linkIsEnding(_ link: LinkSession) { self.reports.append(.ending) }
    package func linkDidEnd(_ link: LinkSession, _ end: LinkEnd) {
        self.end = end
        self.reports.append(.ended)
    }
    package func linkDidEmpty(_ link: LinkSession) { self.reports.append(.emptied) }
}

extension Login {
    /// The login of an agent without a token.
    package static let ofTest = Login(
        method: .instance, instanceKey: [UInt8](repeating: 7, count: 32), run: 1, token: "")
}
