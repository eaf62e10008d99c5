internal import Reactor
internal import Timing

/// Detects a path that silently drops large packets, as behind PPPoE or a VPN (RFC 2923, 2.1). The link then fails
/// although small packets pass.
struct BlackHoleWatch {
    /// The segment size in bytes for the next link. With IPv6 headers and options it fits in 1,280 bytes, the minimum
    /// MTU of IPv6 (RFC 8200, 5).
    static let smallSegment = 1_200
    /// This many consecutive timeouts are no coincidence. Linux uses the same number (tcp(7), tcp_retries1).
    private static let suspiciousTimeouts = 3
    /// Longer than the longest ping interval of a link that still receives bytes.
    private static let suspiciousSilence: Milliseconds = 20_000
    /// The same when the link counts as stuck, because a PING has no answer.
    private static let suspiciousSilenceWhenStuck: Milliseconds = 3_000
    /// A check this late means that this program was stopped and did not read.
    private static let lateCheck: Milliseconds = 5_000

    /// Whether large packets seem to be lost.
    private(set) var isLikely = false
    /// When the peer's last bytes arrived.
    private var heardAt: Milliseconds
    private var checkedAt: Milliseconds

    init(now: Milliseconds) {
        self.heardAt = now
        self.checkedAt = now
    }

    mutating func heard(now: Milliseconds) { self.heardAt = now }

    /// Updates ``isLikely``. Call it about once a second.
    ///
    /// - Parameters:
    ///   - unacknowledged: the number of bytes that the peer has not acknowledged.
    ///   - hasStreams: whether the peer has a reason to send large packets.
    ///   - isStuck: whether the link counts as stuck.
    mutating func look(
        _ sending: Sending, unacknowledged: Int, hasStreams: Bool, isStuck: Bool = false, now: Milliseconds
    ) {
        if now - self.checkedAt >= Self.lateCheck { self.heardAt = now }
        self.checkedAt = now
        let silence = isStuck ? Self.suspiciousSilenceWhenStuck : Self.suspiciousSilence
        let areOursLost = sending.timeouts >= Self.suspiciousTimeouts && unacknowledged > Self.smallSegment
        // The peer acknowledges all our packets, so it is alive. If no bytes of its own arrive, they seem to be lost.
        let acknowledged = Int64(now) - Int64(sending.sinceAcknowledgement)
        let areTheirsLost =
            hasStreams && sending.timeouts == 0 && now - self.heardAt >= silence
            && acknowledged > Int64(self.heardAt) + 1_000
        self.isLikely = sending.segment > Self.smallSegment && (areOursLost || areTheirsLost)
    }
}
