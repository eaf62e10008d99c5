/// How often a link met limits since this was last taken, as far as no end of a link or stream shows it.
package struct LinkHits: Equatable, Sendable {
    /// Harmless oddities of the peer.
    package var glitches = 0
    /// Those of them that were late frames, beyond what can have been on its way.
    package var lateFrames = 0
    /// Streams whose RESET was sent before their queued bytes, because these made no progress.
    package var resetsGivenUp = 0
    /// Streams that began with less than the first window, or had to wait earlier, as memory was short.
    package var reducedWindows = 0

    package init() {}
}

extension Link {
    package mutating func takeHits() -> LinkHits {
        defer { self.hits = LinkHits() }
        return self.hits
    }
}
