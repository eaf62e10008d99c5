/// Chooses the largest TCP segment of the next link.
///
/// A link that ended as if large packets were lost may also have lost its path altogether. So the next link tries small
/// segments, and keeps them only if its first attempt succeeds: then the path is up, and small packets pass.
struct SegmentChoice {
    private enum Advice: Equatable {
        case none
        case trial(Int)
        case proven(Int)
    }

    /// The setting `link-mss`. If set, it is never changed.
    private let configured: Int?
    private var advice = Advice.none

    init(configured: Int?) { self.configured = configured }

    /// Largest segment in bytes; nil: what the interface can carry.
    var largest: Int? {
        switch self.advice {
        case .none: self.configured
        case .trial(let bytes), .proven(let bytes): bytes
        }
    }

    /// - Parameter advised: the segment size that the link suggests; nil if large packets pass as far as it can tell.
    mutating func linkEnded(_ advised: Int?) {
        guard self.configured == nil, self.advice == .none, let advised else { return }
        self.advice = .trial(advised)
    }

    /// No link could be made.
    mutating func failed() {
        if case .trial = self.advice { self.advice = .none }
    }

    /// A link is up.
    ///
    /// - Returns: the segment size that is used from now on, if it is new.
    mutating func linkBegan() -> Int? {
        guard case .trial(let bytes) = self.advice else { return nil }
        self.advice = .proven(bytes)
        return bytes
    }
}
