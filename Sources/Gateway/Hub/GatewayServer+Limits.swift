internal import GatewayCore
internal import Modules
internal import Reactor
internal import Relay
internal import Settings
internal import Tunnel

/// Conversions of the operator's settings.
extension LinkLimits {
    init(_ settings: LimitSettings) {
        self.init(
            streams: settings.streamsPerLink, names: settings.namesPerLink, stalled: settings.stallTimeout,
            halfClosedIdle: settings.halfCloseTimeout, resumeWindow: settings.resumeWindow,
            maxKept: settings.resumeMemory)
        self.handshakeDeadline = settings.handshakeTimeout
        self.loginDeadline = settings.loginTimeout
    }
}

extension VisitorLimits {
    init(_ settings: LimitSettings, _ plan: ResourcePlan) {
        self.init()
        self.total = plan.visitors
        self.unnamed = plan.headers
        self.perSource = settings.visitorsPerSource
        self.ratePerSecond = settings.visitorsPerSecond
        self.burst = settings.visitorsPerSecond * VisitorLimits.burstSeconds
    }
}

extension GatewayMachine.Limits {
    init(_ settings: GatewaySettings, _ plan: ResourcePlan) {
        self.init()
        self.agents = plan.agents
        self.names = plan.names
        self.namesPerAgent = settings.limits.namesPerAgent
        self.namesPerLink = settings.limits.namesPerLink
        self.ports =
            switch settings.exposePorts {
            case .none: .none
            case .any: .any
            case .range(let range): .range(range.low...range.high)
            }
        self.probesBackends = settings.probesBackends
    }
}

extension WithdrawalLimits {
    init(_ settings: LimitSettings) {
        self.init()
        self.perAgent = 2 * settings.namesPerAgent
        // Enough for eight agents at their limit, so that a few agents do not take all of it.
        self.total = max(self.total, 8 * self.perAgent)
    }
}

extension AdmissionLimits {
    init(_ settings: LimitSettings, _ plan: ResourcePlan) {
        self.init()
        self.strangers = plan.strangers
        self.returning = plan.strangers
        self.logins = plan.logins
        self.loginsPerSource = min(self.loginsPerSource, plan.logins / 4)
        self.maxWait = min(self.maxWait, settings.handshakeTimeout / AdmissionLimits.waitShare)
    }
}

extension WorkerSettings {
    init(_ settings: GatewaySettings, _ plan: ResourcePlan, _ sources: SourceRules) {
        self.init(
            linkLimits: LinkLimits(settings.limits), visitorLimits: VisitorLimits(settings.limits, plan),
            sources: sources, socketsAreProxied: settings.socketsAreProxied, logsStreams: settings.logsStreams,
            maxRefused: plan.refused, software: GatewayServer.software)
    }
}
