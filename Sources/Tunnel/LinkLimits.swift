package import Timing

/// The two ends of a link.
package enum Role: Sendable {
    /// Opens streams.
    case gateway
    /// Dials the link and accepts streams.
    case agent
}

/// All limits of a link, with their defaults. Sizes are in bytes, durations in milliseconds.
package struct LinkLimits: Sendable {
    /// Receive window of a new stream: enough for 21 Mbit/s at 100 ms. It grows from there.
    package var startWindow = 256 * 1024
    /// Largest receive window: 335 Mbit/s at 100 ms.
    package var maxWindow = 4 * 1024 * 1024
    /// Largest receive window if a round trip takes less than a millisecond. A larger one would not be faster, and
    /// bytes in flight delay those behind them.
    package var nearWindow = 512 * 1024
    /// Free bytes of a large window at which it is granted again: a sixteenth of the largest.
    package var grantBytes = 256 * 1024
    /// Receive window once half of the budget is granted.
    package var pressureWindow = 64 * 1024
    /// Receive window once the budget is used up: one full frame, so that a stream can always move.
    package var floorWindow = 16 * 1024
    /// Bytes the peer may send on a new stream before it receives a limit. Small, because HELLO promises it to every
    /// stream.
    package var helloWindow = 64 * 1024
    /// With more streams than this HELLO promises the floor window instead. Together the promises stay within the 256
    /// MiB that an agent may hold.
    private static let maxFullPromises = 4_096
    /// Streams open at once. At `floorWindow` each, they take half of `linkBudget`.
    package var maximumStreams = 1_024
    /// Stream ids of a link, less a margin for streams opened before the next link is up.
    package var lastStream: UInt32 = 4_200_000_000
    /// Streams that wait for ACCEPT. More visitors wait in the listener's backlog.
    package var pendingOpens = 256
    /// Pending opens that an exposure gets even if others have used them up. With a backend that answers within 50 ms,
    /// they are enough for 80 visitors a second.
    package var minPendingOpens = 4
    /// Bytes in a stream's send queue: four full frames.
    package var streamQueue = 64 * 1024
    /// Send queue once half of the budget is used.
    package var pressureQueue = 16 * 1024
    /// Send queue once the budget is used up: the least with which a stream can move.
    package var floorQueue = 4 * 1024
    /// A stream without progress for this long leaves its part of the link's budget to the others.
    package var parkedAfter: Milliseconds = 1_000
    /// Sum over all streams of the link: bytes granted but not yet written to the edge, and send queues.
    package var linkBudget = 32 * 1024 * 1024
    /// Bytes of control frames that a peer may leave unread.
    package var owedControl = 64 * 1024
    /// PINGs sent one after another right after the login, to find the shortest round trip.
    package var roundTripSamples: UInt64 = 4
    /// Silence before a PING.
    package var pingAfter: Milliseconds = 15_000
    /// The same at the agent of a session, which replaces a carrier that answers nothing.
    package var agentPingAfter: Milliseconds = 10_000
    /// Silence before a PING when bytes have just arrived and streams are open: what is lost now may be in the middle of
    /// a transfer.
    package var pingAfterTraffic: Milliseconds = 1_000
    /// A carrier counts as stuck when it has acknowledged nothing for this long, or for four round trips if that is
    /// more; and after a PING without an answer for `stuckAfterPing` and silence for `stuckAfter`.
    package var stuckAfter: Milliseconds = 5_000
    package var stuckAfterPing: Milliseconds = 3_000
    /// Silence after which the peer counts as dead.
    package var deadAfter: Milliseconds = 45_000
    /// The same after a jump of the clock (a laptop that slept): the peer has this long to answer a PING.
    package var deadAfterJump: Milliseconds = 5_000
    /// From the TCP connection to the end of the TLS handshake. The driver checks it.
    package var handshakeDeadline: Milliseconds = 10_000
    /// From the TCP connection to the LOGIN.
    package var loginDeadline: Milliseconds = 15_000
    /// From the TCP connection to the WELCOME, at the agent: the gateway's deadline for LOGIN, its authenticator's
    /// deadline (10 s), and network time.
    package var welcomeDeadline: Milliseconds = 30_000
    /// From OPEN to ACCEPT.
    package var acceptDeadline: Milliseconds = 10_000
    /// How long a half-closed stream may be silent; 0: no limit, because a slow answer is not a fault.
    package var halfClosedIdle: Milliseconds = 0
    /// How long received bytes may wait while none of them is written to the edge; 0: no limit, because a pause is not
    /// a fault.
    package var stalled: Milliseconds = 0
    /// How long bytes may wait before our RESET while none of them is sent. Then they are dropped.
    package var resetPatience: Milliseconds = 10_000
    /// How long the link's socket may take no bytes while it has some to send.
    package var outputStalled: Milliseconds = 30_000
    /// Glitches that a peer may cause: a bucket of this size, refilled at `glitchesPerSecond`.
    package var glitchBurst = 1_000
    package var glitchesPerSecond = 33
    /// Late frames allowed for a stream that has ended here, plus one for each `lateFrameBytes` granted on it and
    /// unused.
    package var lateFrames = 16
    package var lateFrameBytes = 1_024
    /// Late frames allowed in all: what 1,024 streams with 1 MiB each can have in flight.
    package var maxLateFrames = 1_024 * LinkLimits.lateFramesPerStream
    /// 1 MiB divided by `lateFrameBytes`.
    private static let lateFramesPerStream = 1_024
    /// OPENs followed by RESET before the agent has accepted: visitors that connect and leave, for example a port scan.
    /// The gateway admits 100 visitors a second from a source.
    package var withdrawnOpenBurst = 5_000
    package var withdrawnOpensPerSecond = 500
    /// WINDOW frames: at most this many per DATA frame sent, plus `windowFrameAllowance`.
    package var windowFramesPerData: UInt64 = 10
    package var windowFrameAllowance: UInt64 = 100
    /// How long a session waits for its next carrier; 0: a link ends with its connection.
    package var resumeWindow: Milliseconds = 60_000
    /// Bytes of frames that are kept until the peer acknowledges them: at first, and at most. Enough for 40 Mbit/s and
    /// 1.3 Gbit/s at 100 ms.
    package var firstKept = 512 * 1024
    package var maxKept = 16 * 1024 * 1024
    /// What a link promises to keep at least if it is made when memory is short already: the least that is allowed.
    package var pressureKept = 64 * 1024
    /// Counted control frames may exceed the bound by this much, because the peer needs them to make progress.
    package var keptForControl = 64 * 1024
    /// Handled bytes after which an ACK is due at once.
    package var acknowledgedBytes = 128 * 1024
    /// How long handled bytes may wait for an ACK. The driver has the timer.
    package static let acknowledgementDelay: Milliseconds = 50
    /// REGISTER and UNREGISTER frames: two for each name of a link, but at least this many, refilled at one a second.
    package var registerBurst = 32
    package var registersPerSecond = 1

    package init() {}

    /// The defaults with the operator's settings.
    ///
    /// - Parameters:
    ///   - streams: streams open at once, 1 to 65,535.
    ///   - names: names that the gateway allows on the link. Each may be registered twice at once.
    ///   - stalled: milliseconds; 0 for no limit.
    ///   - halfClosedIdle: milliseconds; 0 for no limit.
    ///   - resumeWindow: milliseconds; 0: a link ends with its connection.
    ///   - maxKept: bytes, at least 64 KiB.
    package init(
        streams: Int, names: Int = 16, stalled: Milliseconds, halfClosedIdle: Milliseconds,
        resumeWindow: Milliseconds = 60_000, maxKept: Int = 16 * 1024 * 1024
    ) {
        self.resumeWindow = resumeWindow
        self.maxKept = maxKept
        self.firstKept = min(self.firstKept, maxKept)
        if streams > Self.maxFullPromises { self.helloWindow = self.floorWindow }
        self.allow(streams: streams, names: names)
        self.stalled = stalled
        self.halfClosedIdle = halfClosedIdle
    }

    /// Sets the numbers of streams and names, and raises the limits that depend on them.
    mutating func allow(streams: Int, names: Int) {
        self.maximumStreams = streams
        self.maxLateFrames = max(self.maxLateFrames, streams * Self.lateFramesPerStream)
        self.registerBurst = max(self.registerBurst, names * 2)
    }
}
