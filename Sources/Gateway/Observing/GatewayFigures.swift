internal import GatewayCore
internal import Modules
internal import Reactor
internal import Relay
internal import Tunnel
internal import Wire

/// The current state of a gateway, for its metrics.
struct GatewayFigures {
    struct RegistrarState {
        /// Its kind, with a number appended from the second of that kind on.
        let name: String
        let isFailing: Bool
        let figures: RegistrarFigures
    }

    /// Logged in, by protocol version.
    var links = (version1: 0, version2: 0)
    /// Links that wait for a connection.
    var detachedLinks = 0
    /// Identities with at least one link.
    var agents = 0
    var strangers = 0
    var names = (published: 0, waiting: 0)
    var penalties = 0
    var bans = 0
    var plan: ResourcePlan
    var registrars: [RegistrarState] = []
    /// When the certificate expires, in seconds since 1970; nil if no agent checks the date.
    var certificateExpires: Int64?
    var worker = WorkerFigures()
}

extension GatewayServer {
    func figures(_ worker: WorkerFigures) -> GatewayFigures {
        var figures = GatewayFigures(plan: self.plan)
        let sessions = self.agents.openSessions
        figures.agents = Set(sessions.compactMap(\.label.identity)).count
        figures.links.version1 = sessions.count(where: \.isVersion1)
        figures.links.version2 = sessions.count - figures.links.version1
        figures.detachedLinks = sessions.count { $0.detachedSince != nil }
        figures.names.published = self.names.held.count(where: \.isPublished)
        figures.names.waiting = self.names.held.count - figures.names.published
        figures.strangers = self.agents.admission.strangerCount
        figures.penalties = self.agents.admission.penaltyCount(now: self.loop.now)
        figures.bans = self.agents.bans.bans.count
        figures.certificateExpires = self.certificate.dates?.expires
        figures.registrars = self.names.registrars.states
        figures.worker = worker
        return figures
    }
}
