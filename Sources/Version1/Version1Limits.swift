package import Timing
package import Tunnel

/// All limits of a link of version 1, with their defaults. Sizes are in bytes, durations in milliseconds.
///
/// Version 1 has no flow control: received bytes must be kept or dropped. The only brake is to stop reading the link,
/// which holds up all its streams.
package struct Version1Limits: Sendable {
    /// Bytes waiting for one edge at which the link stops reading. With one more read of the link (256 KiB) they stay
    /// within 1 MiB.
    package var slowStream = 768 * 1024
    /// The same while less than one read is left of the budget.
    package var slowStreamUnderPressure = 64 * 1024
    /// Bytes that one read of the link may return. The driver sets it.
    package var readSize: Int
    /// While a stream holds up the link, its edge's peer must take this much within `patience` (1 Mbit/s). Otherwise
    /// the stream is reset.
    package var minProgress = 128 * 1024
    package var patience: Milliseconds = 1_000
    /// Sum of the bytes that wait for the edges of a link.
    package var linkBudget = 32 * 1024 * 1024
    /// Bytes that an edge may read at once while no edge waits.
    package var sendSize = 128 * 1024
    /// Bytes that all starved streams together may send when the link's socket takes bytes again, and the least and
    /// most for each of them.
    package var turnBytes = 256 * 1024
    package var minTurn = 4 * 1024
    package var maxTurn = 64 * 1024
    /// Streams open at once.
    package var maximumStreams = 1_024
    /// Bytes in the outbox beyond which answers to the peer's frames are left out.
    package var owedControl = 64 * 1024
    /// Time for each step of the login, from the TCP connection or from our last answer.
    package var loginDeadline: Milliseconds = 15_000
    /// How long a visitor that has ended its direction may wait for the answer to begin.
    package var answerGrace: Milliseconds = 10_000
    /// The same after the answer has begun: this much silence counts as its end.
    package var quietGrace: Milliseconds = 1_000
    /// How long the edge's socket may stay open after the peer has closed the stream.
    package var closedGrace: Milliseconds = 5_000
    /// Bytes that such a socket may still send. They are discarded.
    package var discardedBytes = 256 * 1024
    /// How long received bytes may wait while none of them is written to the edge; 0: no limit, because a pause is not
    /// a fault.
    package var stalled: Milliseconds = 0
    /// How long the link's socket may take no bytes while it has some to send. Long, because without flow control an
    /// agent whose backend pauses does not read its link.
    package var outputStalled: Milliseconds = 120_000
    /// Agent: how long bytes for a stream that we have closed count as late, not as a new stream with its id. Short,
    /// because the original's ids are source ports, which a busy visitor reuses after a tenth of a second.
    package var stragglers: Milliseconds = 100
    /// Agent: how many closed streams are remembered for that.
    package var rememberedStreams = 4_096

    package init(readSize: Int = 256 * 1024) { self.readSize = readSize }

    /// The defaults with the operator's settings that apply to both versions.
    package init(readSize: Int, _ limits: LinkLimits) {
        self.init(readSize: readSize)
        self.maximumStreams = limits.maximumStreams
        self.loginDeadline = limits.loginDeadline
        self.stalled = limits.stalled
    }
}
