package import Timing
package import Tunnel

/// Every bound of a link of version 1, with its default. Sizes are bytes, spans are milliseconds.
///
/// Version 1 has no flow control: what a peer sends has to be taken or dropped, and the only brake is not to read the
/// link at all, which holds up every stream of it.
package struct Version1Limits: Sendable {
    /// What waits for one edge when the link stops reading. With one read of the link (256 KiB) on top it stays within
    /// 1 MiB.
    package var slowStream = 768 * 1024
    /// The same once `linkBudget` is spent.
    package var slowStreamUnderPressure = 64 * 1024
    /// What one read of the link may bring; the driver knows.
    package var readSize: Int
    /// The peer of a stream that keeps the link waiting must take this much in `patience`, 1 Mbit/s, or is cut.
    package var minProgress = 128 * 1024
    package var patience: Milliseconds = 1_000
    /// Sum of what waits for the edges of a link.
    package var linkBudget = 32 * 1024 * 1024
    /// What an edge may read at once while nobody waits.
    package var sendSize = 128 * 1024
    /// What those who wait for the link's socket may send together when it takes bytes again, and each of them.
    package var turnBytes = 256 * 1024
    package var minTurn = 4 * 1024
    package var maxTurn = 64 * 1024
    /// Streams open at once.
    package var maximumStreams = 1_024
    /// Bytes that we owe a peer who does not read, before new answers to it are left out.
    package var owedControl = 64 * 1024
    /// From the TCP connection, and from each answer of ours, to the next step of the login.
    package var loginDeadline: Milliseconds = 15_000
    /// The visitor will send no more, and waits for an answer that has not begun.
    package var answerGrace: Milliseconds = 10_000
    /// The same after the answer has begun: this much silence is taken for its end.
    package var quietGrace: Milliseconds = 1_000
    /// The peer has closed the stream, and the socket at the edge is not closed yet.
    package var closedGrace: Milliseconds = 5_000
    /// What such a socket may still send, to be thrown away.
    package var discardedBytes = 256 * 1024
    /// How long received bytes may wait without one of them being written on; 0: no limit, because a pause is not a
    /// fault.
    package var stalled: Milliseconds = 0
    /// The link's socket has bytes to send and takes none. Long: without flow control an agent whose backend pauses
    /// does not read its link.
    package var outputStalled: Milliseconds = 120_000
    /// Agent: how long bytes for a stream that we have closed are taken for stragglers of it, and not for a new stream
    /// with its id. Short: the original's ids are source ports, which a busy visitor uses again after a tenth of a second.
    package var stragglers: Milliseconds = 100
    /// Agent: closed streams that are remembered for that.
    package var rememberedStreams = 4_096

    package init(readSize: Int = 256 * 1024) { self.readSize = readSize }

    /// The defaults, with what the operator may set of links of either version.
    package init(readSize: Int, _ limits: LinkLimits) {
        self.init(readSize: readSize)
        self.maximumStreams = limits.maximumStreams
        self.loginDeadline = limits.loginDeadline
        self.stalled = limits.stalled
    }
}
