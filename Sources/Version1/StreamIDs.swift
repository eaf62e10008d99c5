internal import Tunnel

/// Allocates the stream ids of a link at the gateway.
///
/// Ids are `registration << 16 | n` with n from 1 to 65,535, as in the original, where n is the visitor's source port
/// and two visitors can have the same. The id that has been free for the longest is used first, so late bytes for an
/// old stream do not reach a new one.
struct StreamIDs {
    private let prefix: UInt32
    private var fresh: UInt32 = 1
    private var free = Ring<UInt32>()

    init(registration: UInt16) { self.prefix = UInt32(registration) << 16 }

    /// Returns nil if all 65,535 ids are in use.
    mutating func take() -> UInt32? {
        if self.fresh <= UInt32(UInt16.max) {
            defer { self.fresh += 1 }
            return self.prefix | self.fresh
        }
        return self.free.popFirst()
    }

    mutating func give(_ id: UInt32) { self.free.append(id) }
}
