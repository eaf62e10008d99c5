internal import Secure
internal import Tunnel
internal import Wire

/// A limit that has no other counter (`docs/security.md`, Limits), and what is counted for it.
package enum LimitHit: String, CaseIterable, Sendable {
    /// Agent connections whose handshake took too long.
    case handshakeTimeout = "handshake-timeout"
    /// Agent connections whose login took too long.
    case loginTimeout = "login-timeout"
    /// Unauthenticated connections that were closed in favour of a newer one, by the limit for all sources or for one
    /// source. The latter includes connections that were refused because all connections of their source were waiting
    /// for its penalty.
    case strangers
    case strangersPerSource = "strangers-per-source"
    /// Handshakes that were delayed by the penalty of their source.
    case penaltyWait = "penalty-wait"
    /// Logins that were refused because too many were pending, of their source or in total.
    case logins
    /// Names that were refused because their agents had too many pending withdrawals, and resets of a registrar that
    /// replaced its withdrawals.
    case withdrawals
    /// Registrations that were refused because their agent had made too many in a short time.
    case registrations
    /// Agents whose registration counts were dropped because the table of agents was full.
    case registrationTable = "registration-table"
    /// Penalties that were dropped because the table of sources was full.
    case penaltyTable = "penalty-table"
    /// Connections that were closed because their first message, or their certificates, were too large.
    case clientHello = "client-hello"
    case certificateChain = "certificate-chain"
    /// Connections that were closed because of too many TLS messages after the handshake.
    case tlsMessages = "tls-messages"
    /// Handshake reads that were postponed to the next turn of the loop.
    case handshakeReads = "handshake-reads"
    /// Link reads that used up the link's allowance for a turn of the loop.
    case readBudget = "read-budget"
    /// Connections after which the listener of a name was paused because too many streams were waiting for ACCEPT.
    /// Further connections wait in its backlog.
    case pendingOpens = "pending-opens"
    /// Reads from visitors that used up the send queue or the credit of the stream.
    case sendQueue = "send-queue"
    /// Streams that got smaller windows because memory was short.
    case reducedWindow = "reduced-window"
    /// Visitors that got small kernel buffers because there were many visitors.
    case smallBuffers = "small-buffers"
    /// Stalled streams that were ended to make room for a newer visitor, or to free memory.
    case visitors
    case memory
    /// Glitches of agents, and how many of them were late frames.
    case glitches
    case lateFrames = "late-frames"
    /// Resets that were sent before the bytes that should have preceded them.
    case resetWait = "reset-wait"
    /// Streams that were ended by the operator's timeouts.
    case stallTimeout = "stall-timeout"
    case halfCloseTimeout = "half-close-timeout"
    /// Links that were not resumed within the window, and how often the largest amount of bytes that a link keeps stopped
    /// its sending.
    case resumeWindow = "resume-window"
    case resumeMemory = "resume-memory"
    /// Visitors and links that stopped answering and timed out.
    case keepAlive = "keep-alive"
    case linkKeepAlive = "link-keep-alive"
    /// Version 1: how often a link was not read because a visitor was slow, and visitors that were cut for that.
    case slowStreamHold = "v1-slow-stream-hold"
    case slowStream = "v1-slow-stream"
    /// Version 1: streams that were closed because no more of the answer arrived.
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
    /// Counts a limit hit. Does nothing at the agent.
    func hit(_ limit: LimitHit, _ count: Int = 1) { self.meter?.hit(limit, count) }

    /// Counts the limit hits of the machine. Call it about once a second, and at the end.
    func takeHits() {
        guard self.meter != nil else { return }
        let hits = self.machine.takeHits()
        guard hits != LinkHits() else { return }
        self.hit(.glitches, hits.glitches)
        self.hit(.lateFrames, hits.lateFrames)
        self.hit(.resetWait, hits.resetsGivenUp)
        self.hit(.reducedWindow, hits.reducedWindows)
        self.hit(.resumeMemory, hits.keptInFull)
        self.meter?.resent(hits.resentBytes)
    }

    /// Counts the streams that a deadline has ended.
    func countExpired() {
        for (_, expiry) in self.expired {
            switch expiry {
            case .reset(.stalled): self.hit(.stallTimeout)
            case .reset(.idle): self.hit(.halfCloseTimeout)
            // RESET(timeout) has its own counter.
            case .reset: break
            case .finish: self.hit(.closeWait)
            }
        }
    }
}
