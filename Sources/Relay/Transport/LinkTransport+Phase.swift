internal import Timing

// MARK: - How far a connection has come

extension LinkTransport {
    enum Phase {
        /// As the gateway, until the first message of the handshake is complete: a parked connection costs no keys.
        case silent(Greeting)
        /// The gatekeeper decides about a PROXY header.
        case asking(Greeting)
        /// The first message is complete, and the handshake waits until the gatekeeper wants it.
        case waiting(Greeting)
        case open
        /// The last words are on their way; what still comes is thrown away.
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

    /// Whether it only waits for its last words to be read.
    var isLingering: Bool {
        if case .lingering = self.phase { true } else { false }
    }

    /// Why it ends or has ended; nil while it is open.
    var ending: LinkEnd? {
        switch self.phase {
        case .silent, .asking, .waiting, .open: nil
        case .lingering(_, let end), .closing(let end), .closed(let end): end
        }
    }
}
