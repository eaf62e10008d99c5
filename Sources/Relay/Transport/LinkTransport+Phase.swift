internal import Timing

// MARK: - The phases of a connection

extension LinkTransport {
    enum Phase {
        /// At the gateway, until the first message of the handshake is complete. An idle connection has no TLS session.
        case silent(Greeting)
        /// The gatekeeper is deciding about a PROXY header.
        case asking(Greeting)
        /// The first message is complete. The handshake waits for the gatekeeper.
        case waiting(Greeting)
        case open
        /// The last bytes are being sent. Received bytes are discarded.
        case lingering(until: Milliseconds, LinkEnd)
        case closing(LinkEnd)
        case closed(LinkEnd)
    }

    var isOpen: Bool {
        switch self.phase {
        case .silent, .asking, .waiting, .open: true
        case .lingering, .closing, .closed: false
        }
    }

    /// Whether it only waits for the peer to read the last bytes.
    var isLingering: Bool {
        if case .lingering = self.phase { true } else { false }
    }

    /// Why the connection is ending or has ended; nil while it is open.
    var ending: LinkEnd? {
        switch self.phase {
        case .silent, .asking, .waiting, .open: nil
        case .lingering(_, let end), .closing(let end), .closed(let end): end
        }
    }
}
