package import Timing

/// Which end of a link this is.
package enum Role: Sendable {
    /// Opens streams.
    case gateway
    /// Dials the link and accepts streams.
    case agent
}

/// Every bound of a link, with its default. Sizes are bytes, spans are milliseconds.
package struct LinkLimits: Sendable {
    /// Receive window of a new stream: covers 21 Mbit/s at 100 ms, and grows from there.
    package var startWindow = 256 * 1024
    /// Largest receive window: 335 Mbit/s at 100 ms.
    package var maxWindow = 4 * 1024 * 1024
    /// Largest receive window where a round trip takes less than a millisecond: there more buys no speed, and what is
    /// on its way only delays what comes after it.
    package var nearWindow = 512 * 1024
    /// Bytes of a large window that come free before they are granted again: a sixteenth of the largest.
    package var grantBytes = 256 * 1024
    /// Receive window once half of the budget is granted.
    package var pressureWindow = 64 * 1024
    /// Receive window once the budget is spent: one full frame, so that a stream can always move.
    package var floorWindow = 16 * 1024
    /// What the peer may send on a new stream before it hears of a limit. Small: it is promised for every stream.
    package var helloWindow = 64 * 1024
    /// With more streams than that HELLO promises the floor window instead: all promises together stay below the 256 MiB
    /// that an agent may hold.
    private static let maxFullPromises = 4_096
    /// Streams open at once. At `floorWindow` each they take half of `linkBudget`.
    package var maximumStreams = 1_024
    /// Stream ids of a link, less a margin for what is opened until the next link is there.
    package var lastStream: UInt32 = 4_200_000_000
    /// Opens that were not accepted yet; more wait in the listener's backlog.
    package var pendingOpens = 256
    /// What one exposure gets of them also when the others have used them up: with a backend that answers within 50 ms,
    /// it is enough for 80 visitors a second.
    package var minPendingOpens = 4
    /// Bytes waiting in one stream's send queue: four full frames.
    package var streamQueue = 64 * 1024
    /// The same once half of the budget is used, and once all of it is: what a stream needs to move at all.
    package var pressureQueue = 16 * 1024
    package var floorQueue = 4 * 1024
    /// A stream without progress for this long gives its part of the link's budget to the others.
    package var parkedAfter: Milliseconds = 1_000
    /// Sum of what is granted and not yet written on, over all streams of the link.
    package var linkBudget = 32 * 1024 * 1024
    /// Control bytes that we owe a peer who does not read.
    package var owedControl = 64 * 1024
    /// PINGs that follow each other right after the login, for the shortest round trip.
    package var roundTripSamples: UInt64 = 4
    /// Silence before a PING.
    package var pingAfter: Milliseconds = 15_000
    /// Silence after which the peer counts as dead.
    package var deadAfter: Milliseconds = 45_000
    /// The same after a jump of the clock (a laptop that slept): the peer has this long to answer the PING.
    package var deadAfterJump: Milliseconds = 5_000
    /// From the TCP connection to the end of the TLS handshake, at which the driver looks.
    package var handshakeDeadline: Milliseconds = 10_000
    /// From the TCP connection to the LOGIN.
    package var loginDeadline: Milliseconds = 15_000
    /// From the TCP connection to the WELCOME, at the agent: the gateway's deadline for the LOGIN, that of its
    /// authenticator (10 s), and time on the way.
    package var welcomeDeadline: Milliseconds = 30_000
    /// From OPEN to ACCEPT.
    package var acceptDeadline: Milliseconds = 10_000
    /// How long a half-closed stream may be silent; 0: no limit, because a slow answer is not a fault.
    package var halfClosedIdle: Milliseconds = 0
    /// How long received bytes may wait without one of them being written on; 0: no limit, because a pause is not a
    /// fault.
    package var stalled: Milliseconds = 0
    /// How long bytes may wait before our RESET without one of them being sent; then they are dropped.
    package var resetPatience: Milliseconds = 10_000
    /// The link's socket has bytes to send and takes none.
    package var outputStalled: Milliseconds = 30_000
    /// Harmless oddities of a peer: a bucket of this size, refilled at `glitchesPerSecond`.
    package var glitchBurst = 1_000
    package var glitchesPerSecond = 33
    /// Frames that may still come for a stream that we have ended, and one more for each `lateFrameBytes` that were
    /// granted on it and unused.
    package var lateFrames = 16
    package var lateFrameBytes = 1_024
    /// All of them together: what 1,024 streams of 1 MiB may have on their way.
    package var maxLateFrames = 1_024 * LinkLimits.lateFramesPerStream
    /// 1 MiB by `lateFrameBytes`.
    private static let lateFramesPerStream = 1_024
    /// OPENs followed by RESET before the agent has accepted: visitors who come and go, a port scan for instance. The
    /// gateway lets in 100 a second from a source.
    package var withdrawnOpenBurst = 5_000
    package var withdrawnOpensPerSecond = 500
    /// WINDOW frames: at most this many per DATA frame sent, plus `windowFrameAllowance`.
    package var windowFramesPerData: UInt64 = 10
    package var windowFrameAllowance: UInt64 = 100
    /// REGISTER and UNREGISTER frames: two for each name of a link, this many at least, refilled at one a second.
    package var registerBurst = 32
    package var registersPerSecond = 1

    package init() {}

    /// The defaults, with what an operator has set.
    ///
    /// - Parameters:
    ///   - streams: open at once, 1 to 65,535.
    ///   - names: that the gateway allows on the link; all of them may be registered at once, and again.
    ///   - stalled: milliseconds; 0 for no limit.
    ///   - halfClosedIdle: milliseconds; 0 for no limit.
    package init(streams: Int, names: Int = 16, stalled: Milliseconds, halfClosedIdle: Milliseconds) {
        if streams > Self.maxFullPromises { self.helloWindow = self.floorWindow }
        self.allow(streams: streams, names: names)
        self.stalled = stalled
        self.halfClosedIdle = halfClosedIdle
    }

    /// Has as many streams and names as that.
    mutating func allow(streams: Int, names: Int) {
        self.maximumStreams = streams
        self.maxLateFrames = max(self.maxLateFrames, streams * Self.lateFramesPerStream)
        self.registerBurst = max(self.registerBurst, names * 2)
    }
}
