internal import Admission
internal import Settings
internal import Tunnel

/// The operator's limits as the machines take them.
extension LinkLimits {
    init(_ settings: LimitSettings) {
        self.init(
            streams: settings.streamsPerLink, names: settings.namesPerLink, stalled: settings.stallTimeout,
            halfClosedIdle: settings.halfCloseTimeout)
        self.handshakeDeadline = settings.handshakeTimeout
        self.loginDeadline = settings.loginTimeout
    }
}

extension VisitorLimits {
    /// - Parameter total: visitors that descriptors and memory allow.
    init(_ settings: LimitSettings, total: Int) {
        self.init()
        self.total = total
        self.perSource = settings.visitorsPerSource
        self.ratePerSecond = settings.visitorsPerSecond
        self.burst = settings.visitorsPerSecond * VisitorLimits.burstSeconds
    }
}
