package import Reactor
package import Settings
package import Wire

/// An operation in progress that can be cancelled; its completion is then not called.
package protocol Cancellable: AnyObject {
    func cancel()
}

/// What an agent presented at its login.
package struct LoginRequest {
    package let peer: SocketAddress
    /// Whether the agent counts as local: its connection comes from a loopback address, and no PROXY header gives a
    /// different one.
    package let isFromLoopback: Bool
    package let credentials: Credentials
    /// `sha256/...` of the client certificate's key, if the agent has one. TLS has verified that it holds the key.
    package let certificatePin: String?

    package init(peer: SocketAddress, isFromLoopback: Bool, credentials: Credentials, certificatePin: String?) {
        self.peer = peer
        self.isFromLoopback = isFromLoopback
        self.credentials = credentials
        self.certificatePin = certificatePin
    }
}

/// The limits of one agent; nil means the gateway's own limit.
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
    /// The agent's name, the same on all its links. Not a secret: it appears in logs.
    package let identity: String
    /// Identifies the credential that the agent used, without revealing it, in a form private to the authenticator. By
    /// it `revocation(of:)` decides whether the login is still valid after a change.
    package let credential: String
    package let limits: AgentLimits
    /// Whether an agent can create identities at will. Limits per identity are then ineffective.
    package let identityIsFree: Bool

    package init(
        identity: String, credential: String = "", limits: AgentLimits = AgentLimits(), identityIsFree: Bool = false
    ) {
        self.identity = identity
        self.credential = credential
        self.limits = limits
        self.identityIsFree = identityIsFree
    }

    /// A copy with other limits.
    package func with(_ limits: AgentLimits) -> LoginGrant {
        LoginGrant(
            identity: self.identity, credential: self.credential, limits: limits, identityIsFree: self.identityIsFree)
    }
}

package enum LoginVerdict: Equatable {
    case granted(LoginGrant)
    /// The agent receives the code, with a text that is the same for every refusal with this code; `reason` is for the
    /// log. `overloaded` means that nothing was decided, and the agent may retry.
    case refused(ErrorCode, reason: String)
}

/// An agent's request for a name.
package struct NameRequest {
    package let identity: String
    package let peer: SocketAddress
    package let name: Name
    /// The requested public port, or 0 for any.
    package let port: UInt16

    package init(identity: String, peer: SocketAddress, name: Name, port: UInt16) {
        self.identity = identity
        self.peer = peer
        self.name = name
        self.port = port
    }
}

/// Why a login was revoked.
package struct Revocation: Equatable {
    /// For the log, about the agent: `has expired`.
    package let reason: String
    /// For the agent, without paths of the gateway.
    package let told: String

    package init(reason: String, told: String) {
        self.reason = reason
        self.told = told
    }

    /// With the same words for both.
    package init(_ reason: String) { self.init(reason: reason, told: "the agent \(reason)") }
}

package enum NameVerdict: Equatable {
    /// - Parameter ports: the public ports that the name may use; empty for all of the gateway's.
    case granted(ports: [ClosedRange<UInt16>])
    /// - Parameters:
    ///   - reason: for the gateway's log.
    ///   - told: for the agent, about its own rights; nil for a general text.
    case refused(ErrorCode, reason: String, told: String? = nil)
}

/// Identifies agents and decides which names they may use. Authenticators are one of diglett's two extension points;
/// the other is ``Registrar``.
///
/// The gateway calls both methods on the loop. They call `completion` exactly once, on the loop, immediately or later.
/// After ten seconds the gateway cancels the request and refuses.
package protocol Authenticator: AnyObject {
    /// Identifies an agent. Returns nil if `completion` was already called.
    func authenticate(
        _ request: LoginRequest, completion: @escaping (LoginVerdict) -> Void
    ) -> (any Cancellable)?

    /// Decides whether an agent may use a name. Returns nil if `completion` was already called.
    func authorize(_ request: NameRequest, completion: @escaping (NameVerdict) -> Void) -> (any Cancellable)?

    /// The gateway calls this once. The authenticator then calls `rightsChanged` whenever rights may have changed, and
    /// the gateway calls `revocation` and `limits` for every link, and `authorize` again for every held name.
    func onChange(_ rightsChanged: @escaping () -> Void)

    /// Why a login was revoked; nil if it is valid, as far as the authenticator knows without calling a hook.
    func revocation(of grant: LoginGrant) -> Revocation?

    /// The current limits for this login; nil to keep those granted at the login.
    func limits(of grant: LoginGrant) -> AgentLimits?

    /// What `reload` would change, one line each; nil if only new requests can show it. Throws if the file is invalid.
    func pendingChanges() throws(SettingsErrors) -> [String]?

    /// Reads everything again, at the operator's request (SIGHUP, `ctl reload`).
    func reload()

    /// Closes everything that is open, because the gateway stops.
    func close()
}

extension Authenticator {
    package func limits(of grant: LoginGrant) -> AgentLimits? { nil }

    package func pendingChanges() throws(SettingsErrors) -> [String]? { nil }
}
