/// How often a link met limits since the last `takeHits()`. Limits that end a link or stream are not counted here.
package struct LinkHits: Equatable, Sendable {
    /// Needless but harmless frames from the peer.
    package var glitches = 0
    /// Glitches that were late frames, beyond those that can have been in flight.
    package var lateFrames = 0
    /// Streams whose queued bytes were dropped before their RESET, because they made no progress.
    package var resetsGivenUp = 0
    /// Streams that got less than the start window or, in version 1, held up the link earlier, because memory was
    /// short.
    package var reducedWindows = 0
    /// How often sending stopped because as many bytes were kept as the link may keep at most.
    package var keptInFull = 0
    /// Bytes that were sent again on another carrier.
    package var resentBytes = 0

    package init() {}
}

extension Link {
    package mutating func takeHits() -> LinkHits {
        defer { self.hits = LinkHits() }
        return self.hits
    }
}
