internal import Reactor
internal import Timing

/// Notices a path that may drop large packets without telling anybody, as behind PPPoE or a VPN (RFC 2923, 2.1). The link
/// then dies, although small packets pass.
struct BlackHoleWatch {
    /// What the next link should use: with the headers of IPv6 and options it fits a path of 1,280 bytes, which every
    /// one must carry (RFC 8200, 5).
    static let smallSegment = 1_200
    /// So many timeouts in a row are no longer chance; Linux takes the same number (tcp(7), tcp_retries1).
    private static let suspiciousTimeouts = 3
    /// Longer than any pause between the pings of a link on which something is heard.
    private static let suspiciousSilence: Milliseconds = 20_000

    /// Whether the link looks as if large packets did not pass.
    private(set) var isLikely = false
    /// When the peer's last bytes came.
    private var heardAt: Milliseconds

    init(now: Milliseconds) { self.heardAt = now }

    mutating func heard(now: Milliseconds) { self.heardAt = now }

    /// Call it about once a second.
    ///
    /// - Parameters:
    ///   - unacknowledged: bytes that the peer has not acknowledged.
    ///   - hasStreams: whether the peer has a reason for large packets.
    mutating func look(
        _ sending: Sending, unacknowledged: Int, hasStreams: Bool, now: Milliseconds
    ) {
        let areOursLost = sending.timeouts >= Self.suspiciousTimeouts && unacknowledged > Self.smallSegment
        // It has all of ours, so it is there.
        let acknowledged = Int64(now) - Int64(sending.sinceAcknowledgement)
        let areTheirsLost =
            hasStreams && sending.timeouts == 0 && now - self.heardAt >= Self.suspiciousSilence
            && acknowledged > Int64(self.heardAt) + 1_000
        self.isLikely = sending.segment > Self.smallSegment && (areOursLost || areTheirsLost)
    }
}
