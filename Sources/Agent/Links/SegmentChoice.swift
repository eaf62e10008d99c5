/// The largest TCP segment of the next link.
///
/// A link that died as if large packets were lost may also have died of a path that is down. So its successor tries small
/// segments, and they stay only if it is there at the first attempt: then the path is up, and small packets pass.
struct SegmentChoice {
    private enum Advice: Equatable {
        case none
        case trial(Int)
        case proven(Int)
    }

    /// `link-mss`; it is never changed.
    private let configured: Int?
    private var advice = Advice.none

    init(configured: Int?) { self.configured = configured }

    /// Bytes; nil: what the interface can carry.
    var largest: Int? {
        switch self.advice {
        case .none: self.configured
        case .trial(let bytes), .proven(let bytes): bytes
        }
    }

    /// - Parameter advised: nil: large packets pass, as far as that link can tell.
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
    /// - Returns: the segment that will be used from now on, if that is news.
    mutating func linkBegan() -> Int? {
        guard case .trial(let bytes) = self.advice else { return nil }
        self.advice = .proven(bytes)
        return bytes
    }
}
