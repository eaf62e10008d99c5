package import Reactor
package import Settings
package import Wire

/// Something that is under way and can be called off: its completion will then not be called.
package protocol Cancellable: AnyObject {
    func cancel()
}

/// What an agent has shown of itself.
package struct LoginRequest {
    package let peer: SocketAddress
    /// Whether the agent has the rights of the gateway's machine: its connection comes from a loopback address, and no
    /// PROXY header has another one.
    package let isFromLoopback: Bool
    package let credentials: Credentials
    /// `sha256/...` of the client certificate's key, if the agent has one. TLS has proved that it holds the key.
    package let certificatePin: String?

    package init(peer: SocketAddress, isFromLoopback: Bool, credentials: Credentials, certificatePin: String?) {
        self.peer = peer
        self.isFromLoopback = isFromLoopback
        self.credentials = credentials
        self.certificatePin = certificatePin
    }
}

/// What an agent may have; nil for the gateway's own limits.
package struct AgentLimits: Equatable, Sendable {
    package var links: Int?
    package var names: Int?
    package var streams: Int?

    package init(links: Int? = nil, names: Int? = nil, streams: Int? = nil) {
        self.links = links
        self.names = names
        self.streams = streams
    }
}

/// A login that was accepted.
package struct LoginGrant: Equatable {
    /// The same for the same agent from link to link; shown in logs, so no secret.
    package let identity: String
    /// By what the agent was known, in the authenticator's own words and without a secret: tells whether the login
    /// still holds after a change.
    package let credential: String
    package let limits: AgentLimits
    /// Whether an agent can create identities at will, so that limits of one identity limit nothing.
    package let identityIsFree: Bool

    package init(
        identity: String, credential: String = "", limits: AgentLimits = AgentLimits(), identityIsFree: Bool = false
    ) {
        self.identity = identity
        self.credential = credential
        self.limits = limits
        self.identityIsFree = identityIsFree
    }

    /// The same with other limits.
    package func with(_ limits: AgentLimits) -> LoginGrant {
        LoginGrant(
            identity: self.identity, credential: self.credential, limits: limits, identityIsFree: self.identityIsFree)
    }
}

package enum LoginVerdict: Equatable {
    case granted(LoginGrant)
    /// The agent hears the code and one text that is the same for every refusal of that code; `reason` goes to the log.
    /// With `overloaded` nothing was decided, and the agent may come back.
    case refused(ErrorCode, reason: String)
}

/// An agent asks for a name.
package struct NameRequest {
    package let identity: String
    package let peer: SocketAddress
    package let name: Name
    /// The wanted public port, or 0.
    package let port: UInt16

    package init(identity: String, peer: SocketAddress, name: Name, port: UInt16) {
        self.identity = identity
        self.peer = peer
        self.name = name
        self.port = port
    }
}

package enum NameVerdict: Equatable {
    /// - Parameter ports: the public ports that the name may have; empty for those of the gateway.
    case granted(ports: [ClosedRange<UInt16>])
    case refused(ErrorCode, reason: String)
}

/// Decides who an agent is and which names it may use: the first of the two seams at which diglett is extended.
///
/// Both questions are asked on the loop and answered on the loop, by calling `completion` exactly once, at once or
/// later. The gateway gives each question ten seconds, then cancels it and refuses.
package protocol Authenticator: AnyObject {
    /// Who is this? Nil when `completion` was called already.
    func authenticate(
        _ request: LoginRequest, completion: @escaping (LoginVerdict) -> Void
    ) -> (any Cancellable)?

    /// May it have this name? Nil when `completion` was called already.
    func authorize(_ request: NameRequest, completion: @escaping (NameVerdict) -> Void) -> (any Cancellable)?

    /// Called by the gateway once, with what is to be called when rights may have changed: the gateway then asks
    /// `revocation` and `limits` for every link, and `authorize` again for every name that is held.
    func onChange(_ rightsChanged: @escaping () -> Void)

    /// Why a login does not hold any more, for the log; nil when it does, as far as this can be told without asking
    /// anybody.
    func revocation(of grant: LoginGrant) -> String?

    /// The limits that hold now for whoever logged in so; nil for those of the login.
    func limits(of grant: LoginGrant) -> AgentLimits?

    /// What `reload` would change, a line each; nil when only asking again can tell.
    func pendingChanges() throws(SettingsErrors) -> [String]?

    /// The operator asks to read everything anew (SIGHUP).
    func reload()

    /// The gateway stops: close what is open.
    func close()
}

extension Authenticator {
    package func limits(of grant: LoginGrant) -> AgentLimits? { nil }

    package func pendingChanges() throws(SettingsErrors) -> [String]? { nil }
}
