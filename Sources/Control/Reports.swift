/// What a gateway tells of itself.
package struct GatewayReport: Codable, Equatable, Sendable {
    package struct Registrar: Codable, Equatable, Sendable {
        package let name: String
        /// Why it cannot do what it shall; nil when it works.
        package let failure: String?
        /// Names that are being published or withdrawn.
        package let pending: Int

        package init(name: String, failure: String?, pending: Int) {
            self.name = name
            self.failure = failure
            self.pending = pending
        }
    }

    /// The certificate that agents get.
    package struct Certificate: Codable, Equatable, Sendable {
        /// Nil when it is the gateway's own.
        package let file: String?
        /// Until when it is valid, RFC 3339.
        package let expires: String
        /// That it has expired, or will soon.
        package let warning: String?
        /// Why the files as they are now are not in use.
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
    /// How long it has been so.
    package let seconds: Int
    package let listening: [String]
    package let pin: String
    /// Nil when agents look at its key only.
    package let certificate: Certificate?
    /// How agents are known.
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
    /// How long it has been so.
    package let seconds: Int
    package let names: [String]
    package let streams: Int

    package init(
        link: UInt64, agent: String, peer: String, protocol: Int, seconds: Int, names: [String], streams: Int
    ) {
        self.link = link
        self.agent = agent
        self.peer = peer
        self.protocol = `protocol`
        self.seconds = seconds
        self.names = names
        self.streams = streams
    }
}

/// A name and where its visitors come in.
package struct ExposureReport: Codable, Equatable, Sendable {
    package let name: String
    package let agent: String
    package let link: UInt64
    package let address: String?
    package let socket: String?
    /// False while the registrars publish it or its backend is waited for.
    package let published: Bool
    /// How long it has been so.
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

/// A source whose handshakes wait for a penalty, or a banned network.
package struct BarReport: Codable, Equatable, Sendable {
    package let network: String
    /// Seconds that are left; nil until it is taken back.
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
    /// Nil where nobody knows it: behind a unix socket.
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

/// What somebody who watches streams hears.
package struct StreamNews: Codable, Equatable, Sendable {
    package enum Event: String, Codable, Sendable {
        /// It was there when the watch began.
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

/// What an agent tells of itself.
package struct AgentReport: Codable, Equatable, Sendable {
    package struct Name: Codable, Equatable, Sendable {
        package let name: String
        package let backend: String
        /// Nil until it is known, and with version 1.
        package let address: String?
        package let reachable: Bool
        /// Why it is not.
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
    /// How long it has been running.
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
