internal import Reactor
internal import Relay
internal import Secure
internal import Tunnel
internal import Wire

/// Receives the link events of a session.
protocol GatewaySessionOwner: AnyObject {
    func session(_ session: GatewaySession, judge peer: ChannelPeer) -> PeerVerdict
    /// The gateway's HELLO has arrived.
    func session(_ session: GatewaySession, greeted hello: Hello)
    /// The answer to RESUME.
    func session(_ session: GatewaySession, resumed: Resumed)
    func session(_ session: GatewaySession, welcomed welcome: Welcome)
    func session(_ session: GatewaySession, registered answer: Registered)
    func session(_ session: GatewaySession, goAway: GoAway)
    /// The connection is gone, and the link waits for the next one.
    func sessionDetached(_ session: GatewaySession, _ end: LinkEnd)
    /// The link has ended. Backends may still receive bytes that arrived before.
    func sessionEnded(_ session: GatewaySession, _ end: LinkEnd)
    /// Called after `sessionEnded`, when all backend connections are closed too.
    func sessionEmptied(_ session: GatewaySession)
}

/// Finds backends for the streams of a session, and receives their events.
protocol GatewayStreams: AnyObject {
    /// Returns nil if the name was removed.
    func backend(of exposure: UInt16) -> Backend?
    func opened(_ open: Open)
    /// The backend cannot be reached.
    func failed(_ open: Open, _ backend: Backend, _ error: UVError)
    /// - Parameter link: why the whole link ended; nil if only the stream ended.
    func ended(_ edge: Edge, _ end: StreamEnd, link: LinkEnd?)
}

/// One link of the agent. Connects backends to the streams that the gateway opens.
final class GatewaySession {
    let link: LinkSession
    /// The gateway's address for this link.
    var address: SocketAddress? { self.link.transport.peerAddress }
    /// The key that the gateway has shown on this link's first connection; nil before the handshake, and in version 1.
    private(set) var pin: Pin?
    /// Whether the peer has presented a key, so it is probably a gateway.
    private(set) var isSecured = false
    private let owner: any GatewaySessionOwner
    private let streams: any GatewayStreams
    /// Backends that are being connected.
    private var connectors: [StreamKey: Connector] = [:]

    init(link: LinkSession, owner: any GatewaySessionOwner, streams: any GatewayStreams) {
        self.link = link
        self.owner = owner
        self.streams = streams
        link.delegate = self
    }

    private func opened(_ key: StreamKey, _ open: Open) {
        guard let backend = self.streams.backend(of: open.exposure) else { return self.link.abort(key, .withdrawn) }
        self.streams.opened(open)
        self.connectors[key] = backend.connect(loop: self.link.loop) { [weak self] result in
            self?.connected(key, open, backend, result)
        }
    }

    private func connected(
        _ key: StreamKey, _ open: Open, _ backend: Backend, _ result: Result<SocketStream, UVError>
    ) {
        self.connectors[key] = nil
        switch result {
        case .success(let socket): self.link.accept(key, backend: socket, preface: backend.preface(of: open))
        case .failure(let error):
            self.streams.failed(open, backend, error)
            self.link.abort(key, Self.code(of: error))
        }
    }

    /// The code that the gateway receives when a backend cannot be connected.
    private static func code(of error: UVError) -> ErrorCode {
        switch error {
        case .connectionRefused, .noSuchFile: .refused
        case .timedOut: .timeout
        case .permissionDenied: .denied
        case .tooManyFiles: .overloaded
        default: .unreachable
        }
    }
}

extension GatewaySession: LinkSessionDelegate {
    func link(_ link: LinkSession, didSecure peer: ChannelPeer) -> PeerVerdict {
        self.isSecured = true
        self.pin = peer.pin
        return self.owner.session(self, judge: peer)
    }

    func link(_ link: LinkSession, did event: LinkEvent) {
        switch event {
        case .greeted(let hello): self.owner.session(self, greeted: hello)
        case .resumed(let resumed): self.owner.session(self, resumed: resumed)
        case .welcomed(let welcome): self.owner.session(self, welcomed: welcome)
        case .registered(let answer): self.owner.session(self, registered: answer)
        case .opened(let key, let open): self.opened(key, open)
        case .goAway(let goAway): self.owner.session(self, goAway: goAway)
        case .needMore, .resume, .login, .register, .unregister, .ready, .accepted, .data, .reset,
            .violation:
            break
        }
    }

    func link(_ link: LinkSession, streamEnded edge: Edge, _ end: StreamEnd) {
        self.connectors.removeValue(forKey: edge.key)?.cancel()
        self.streams.ended(edge, end, link: link.ending)
    }

    func linkDidDetach(_ link: LinkSession, _ end: LinkEnd) { self.owner.sessionDetached(self, end) }

    func linkIsEnding(_ link: LinkSession) {}

    func linkDidEnd(_ link: LinkSession, _ end: LinkEnd) { self.owner.sessionEnded(self, end) }

    func linkDidEmpty(_ link: LinkSession) { self.owner.sessionEmptied(self) }
}
