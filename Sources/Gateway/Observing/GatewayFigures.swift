internal import GatewayCore
internal import Modules
internal import Reactor
internal import Relay
internal import Tunnel
internal import Wire

/// What a gateway is at this moment, in figures.
struct GatewayFigures {
    struct RegistrarState {
        /// Its kind, with a number from the second of that kind on.
        let name: String
        let isFailing: Bool
        let figures: RegistrarFigures
    }

    /// Logged in, by version of the protocol.
    var links = (version1: 0, version2: 0)
    /// Identities that have a link.
    var agents = 0
    var strangers = 0
    var names = (published: 0, waiting: 0)
    var visitors = 0
    var penalties = 0
    var bans = 0
    /// Bytes that peers may make the gateway hold, or do: see ``ByteBudget``.
    var granted = (used: 0, limit: 0)
    var plan: ResourcePlan
    var registrars: [RegistrarState] = []
    /// Until when the certificate is valid, since 1970; nil when no agent looks at that.
    var certificateExpires: Int64?
    /// Of the names that are held now, in no order.
    var traffic: [(name: Name, traffic: Traffic)] = []
}

extension GatewayServer {
    var figures: GatewayFigures {
        var figures = GatewayFigures(plan: self.plan)
        var identities: Set<String> = []
        for session in self.sessions.values {
            for exposure in session.exposures {
                if exposure.isPublished { figures.names.published += 1 } else { figures.names.waiting += 1 }
                figures.traffic.append((exposure.name, exposure.meter.traffic))
            }
            guard let identity = session.identity, session.link.isOpen else { continue }
            identities.insert(identity.id)
            if session.link.protocolNumber == 1 {
                figures.links.version1 += 1
            } else {
                figures.links.version2 += 1
            }
        }
        figures.agents = identities.count
        figures.strangers = self.admission.strangerCount
        figures.visitors = self.visitors.count
        figures.penalties = self.admission.penaltyCount(now: self.loop.now)
        figures.bans = self.bans.bans.count
        figures.granted = (self.budget.used, self.budget.limit)
        figures.certificateExpires = self.certificate.dates?.expires
        figures.registrars = self.names.registrars.states
        return figures
    }
}
