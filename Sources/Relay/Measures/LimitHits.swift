internal import Secure
internal import Tunnel
internal import Wire

/// A limit without a counter of its own (`docs/security.md`, Limits).
package enum LimitHit: String, CaseIterable, Sendable {
    /// Connections of agents whose handshake took too long.
    case handshakeTimeout = "handshake-timeout"
    /// The same for the login.
    case loginTimeout = "login-timeout"
    /// Unauthenticated connections that were closed for a newer one: of all, and of one source. The latter includes
    /// connections that were refused because all connections of their source wait for its penalty.
    case strangers
    case strangersPerSource = "strangers-per-source"
    /// Handshakes that waited for the penalty of their source.
    case penaltyWait = "penalty-wait"
    /// Logins that were refused as too many were being judged, of their source or in all.
    case logins
    /// Names that were refused as their agents had left too many to be withdrawn, and times that a reset of a registrar
    /// replaced its withdrawals.
    case withdrawals
    /// Registrations that were refused as their agent had made too many in a short time.
    case registrations
    /// Agents whose registrations were forgotten as the table of agents was full.
    case registrationTable = "registration-table"
    /// Penalties that were forgotten as the table of sources was full.
    case penaltyTable = "penalty-table"
    /// Connections that ended for the size of their first message, or of their certificates.
    case clientHello = "client-hello"
    case certificateChain = "certificate-chain"
    /// Connections that ended for too many TLS messages after the handshake.
    case tlsMessages = "tls-messages"
    /// Reads of handshakes that waited for the next turn of the loop.
    case handshakeReads = "handshake-reads"
    /// Reads of links that brought as much as one may in a turn of the loop.
    case readBudget = "read-budget"
    /// Connections to the listener of a name after which further ones wait in its backlog, because too many streams wait
    /// for ACCEPT.
    case pendingOpens = "pending-opens"
    /// Reads of visitors after which the send queue or the credit of the stream was used up.
    case sendQueue = "send-queue"
    /// Streams that got smaller windows, as memory was short.
    case reducedWindow = "reduced-window"
    /// Visitors whose kernel buffers were made small, as many were there.
    case smallBuffers = "small-buffers"
    /// Stalled streams that were ended: for a newer visitor, and for memory.
    case visitors
    case memory
    /// Glitches of agents, and those of them that were late frames.
    case glitches
    case lateFrames = "late-frames"
    /// Resets that were sent before what should have gone first.
    case resetWait = "reset-wait"
    /// Streams that were ended by the operator's timeouts.
    case stallTimeout = "stall-timeout"
    case halfCloseTimeout = "half-close-timeout"
    /// Visitors, and links, that answered nothing and were given up by the kernel or for it.
    case keepAlive = "keep-alive"
    case linkKeepAlive = "link-keep-alive"
    /// Version 1: links that were not read as one visitor was slow, and visitors that were cut for it.
    case slowStreamHold = "v1-slow-stream-hold"
    case slowStream = "v1-slow-stream"
    /// Version 1: streams that were closed because the answer had gone silent.
    case closeWait = "v1-close-wait"
}

extension LimitHit {
    init(_ limit: SecurityError.Limit) {
        switch limit {
        case .messages: self = .tlsMessages
        case .certificates: self = .certificateChain
        }
    }
}

extension LinkSession {
    /// Counts a limit, at the gateway.
    func hit(_ limit: LimitHit, _ count: Int = 1) { self.meter?.hit(limit, count) }

    /// Counts what the machine has met; call it about once a second, and at the end.
    func takeHits() {
        guard self.meter != nil else { return }
        let hits = self.machine.takeHits()
        guard hits != LinkHits() else { return }
        self.hit(.glitches, hits.glitches)
        self.hit(.lateFrames, hits.lateFrames)
        self.hit(.resetWait, hits.resetsGivenUp)
        self.hit(.reducedWindow, hits.reducedWindows)
    }

    /// Counts the streams that the clock has ended.
    func countExpired() {
        for (_, expiry) in self.expired {
            switch expiry {
            case .reset(.stalled): self.hit(.stallTimeout)
            case .reset(.idle): self.hit(.halfCloseTimeout)
            // RESET(timeout) has a counter of its own.
            case .reset: break
            case .finish: self.hit(.closeWait)
            }
        }
    }
}
