/// The status of a gateway.
package struct GatewayReport: Codable, Equatable, Sendable {
    package struct Registrar: Codable, Equatable, Sendable {
        package let name: String
        /// Why the registrar is failing; nil if it works.
        package let failure: String?
        /// Number of names that are being published or withdrawn.
        package let pending: Int

        package init(name: String, failure: String?, pending: Int) {
            self.name = name
            self.failure = failure
            self.pending = pending
        }
    }

    /// The certificate that agents receive.
    package struct Certificate: Codable, Equatable, Sendable {
        /// Nil for the gateway's own certificate.
        package let file: String?
        /// End of its validity, RFC 3339.
        package let expires: String
        /// A warning that it has expired or will expire soon.
        package let warning: String?
        /// Why the current files are not in use; nil if they are.
        package let failure: String?

        package init(file: String?, expires: String, warning: String?, failure: String?) {
            self.file = file
            self.expires = expires
            self.warning = warning
            self.failure = failure
        }
    }

    package let version: String
    package let process: Int32
    /// `running` or `draining`.
    package let state: String
    /// Time in this state, in seconds.
    package let seconds: Int
    package let listening: [String]
    package let pin: String
    /// Nil if agents check the gateway's key only.
    package let certificate: Certificate?
    /// The authenticator.
    package let authentication: String
    package let agents: Int
    package let links: Int
    package let names: Int
    package let streams: Int
    package let visitors: Int
    package let logLevel: String
    package let registrars: [Registrar]

    package init(
        version: String, process: Int32, state: String, seconds: Int, listening: [String], pin: String,
        certificate: Certificate?, authentication: String, agents: Int, links: Int, names: Int, streams: Int,
        visitors: Int, logLevel: String,
        registrars: [Registrar]
    ) {
        self.version = version
        self.process = process
        self.state = state
        self.seconds = seconds
        self.listening = listening
        self.pin = pin
        self.certificate = certificate
        self.authentication = authentication
        self.agents = agents
        self.links = links
        self.names = names
        self.streams = streams
        self.visitors = visitors
        self.logLevel = logLevel
        self.registrars = registrars
    }

    private enum CodingKeys: String, CodingKey {
        case version, process, state, seconds, listening, pin, certificate, authentication, agents, links, names,
            streams
        case visitors
        case logLevel = "log-level"
        case registrars
    }
}

/// One link of an agent.
package struct LinkReport: Codable, Equatable, Sendable {
    package let link: UInt64
    package let agent: String
    package let peer: String
    /// 1 or 2.
    package let `protocol`: Int
    /// Age of the link in seconds.
    package let seconds: Int
    /// For how many seconds the link has had no connection; nil while it has one.
    package let away: Int?
    package let names: [String]
    package let streams: Int

    package init(
        link: UInt64, agent: String, peer: String, protocol: Int, seconds: Int, away: Int? = nil, names: [String],
        streams: Int
    ) {
        self.link = link
        self.agent = agent
        self.peer = peer
        self.protocol = `protocol`
        self.seconds = seconds
        self.away = away
        self.names = names
        self.streams = streams
    }
}

/// A name and its listeners for visitors.
package struct ExposureReport: Codable, Equatable, Sendable {
    package let name: String
    package let agent: String
    package let link: UInt64
    package let address: String?
    package let socket: String?
    /// False while registrars publish the name, or while the gateway waits for its backend.
    package let published: Bool
    /// Age of the name in seconds.
    package let seconds: Int
    package let streams: Int

    package init(
        name: String, agent: String, link: UInt64, address: String?, socket: String?, published: Bool, seconds: Int,
        streams: Int
    ) {
        self.name = name
        self.agent = agent
        self.link = link
        self.address = address
        self.socket = socket
        self.published = published
        self.seconds = seconds
        self.streams = streams
    }
}

/// A source whose handshakes are delayed by a penalty, or a banned network.
package struct BarReport: Codable, Equatable, Sendable {
    package let network: String
    /// Remaining time in seconds; nil for a ban that lasts until `unban`.
    package let seconds: Int?

    package init(network: String, seconds: Int?) {
        self.network = network
        self.seconds = seconds
    }
}

/// A visitor's connection.
package struct StreamReport: Codable, Equatable, Sendable {
    package let name: String
    package let agent: String
    package let link: UInt64
    /// Nil if it is unknown, as behind a unix socket.
    package let visitor: String?
    package let seconds: Double
    package let bytesToBackend: UInt64
    package let bytesToVisitor: UInt64

    package init(
        name: String, agent: String, link: UInt64, visitor: String?, seconds: Double, bytesToBackend: UInt64,
        bytesToVisitor: UInt64
    ) {
        self.name = name
        self.agent = agent
        self.link = link
        self.visitor = visitor
        self.seconds = seconds
        self.bytesToBackend = bytesToBackend
        self.bytesToVisitor = bytesToVisitor
    }

    private enum CodingKeys: String, CodingKey {
        case name, agent, link, visitor, seconds
        case bytesToBackend = "bytes-to-backend"
        case bytesToVisitor = "bytes-to-visitor"
    }
}

/// A change of the streams, sent to a client that watches them.
package struct StreamNews: Codable, Equatable, Sendable {
    package enum Event: String, Codable, Sendable {
        /// The stream was already open when the watch began.
        case running
        case opened, closed
    }

    package let event: Event
    package let stream: StreamReport
    /// Why it was closed.
    package let reason: String?

    package init(_ event: Event, _ stream: StreamReport, reason: String? = nil) {
        self.event = event
        self.stream = stream
        self.reason = reason
    }
}

/// The status of an agent.
package struct AgentReport: Codable, Equatable, Sendable {
    package struct Name: Codable, Equatable, Sendable {
        package let name: String
        package let backend: String
        /// Nil until it is known, and always with version 1.
        package let address: String?
        package let reachable: Bool
        /// Why it is not reachable.
        package let reason: String?

        package init(name: String, backend: String, address: String?, reachable: Bool, reason: String?) {
            self.name = name
            self.backend = backend
            self.address = address
            self.reachable = reachable
            self.reason = reason
        }
    }

    package let version: String
    package let process: Int32
    package let gateway: String
    package let state: String
    package let connected: Bool
    /// Time since the agent's start, in seconds.
    package let seconds: Int
    package let streams: Int
    package let names: [Name]

    package init(
        version: String, process: Int32, gateway: String, state: String, connected: Bool, seconds: Int, streams: Int,
        names: [Name]
    ) {
        self.version = version
        self.process = process
        self.gateway = gateway
        self.state = state
        self.connected = connected
        self.seconds = seconds
        self.streams = streams
        self.names = names
    }
}
