internal import Timing

// MARK: - How far a link has come

extension LinkConnection {
    enum Phase {
        /// As the gateway, until the first message of the handshake is complete: a parked connection costs no keys.
        case silent(Greeting)
        /// The first message is complete, and the handshake waits for a penalty.
        case waiting(Greeting)
        case open
        /// The last words are on their way; what still comes is thrown away.
        case lingering(until: Milliseconds, LinkEnd)
        case closing(LinkEnd)
        /// The socket is closed, edges are not.
        case emptying(LinkEnd)
        case closed
    }

    package var isOpen: Bool {
        switch self.phase {
        case .silent, .waiting, .open: true
        case .lingering, .closing, .emptying, .closed: false
        }
    }

    /// Whether it only waits for its last words to be read.
    package var isLingering: Bool {
        if case .lingering = self.phase { true } else { false }
    }

    /// Why it ends or has ended; nil while it is open.
    package var ending: LinkEnd? {
        switch self.phase {
        case .silent, .waiting, .open, .closed: nil
        case .lingering(_, let end), .closing(let end), .emptying(let end): end
        }
    }
}
