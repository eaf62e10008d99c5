internal import Gateway
internal import Secure
package import Settings
internal import Wire

/// The operations of an operator on the agents file: the commands `diglett-server agent ...`.
///
/// A running gateway detects changes of the file within a second.
package struct AgentAdministration {
    /// A new token, and a line with everything that an agent needs.
    package struct Invitation {
        /// Shown only once, because the file contains only its hash.
        package let token: String
        /// `diglett://TOKEN@HOST:PORT#sha256/PIN`, or the same without the pin.
        package let line: String
        /// Advice about a line without a pin; nil for a line with one.
        package let note: String?
        /// The token for protocol version 1, if requested.
        package let version1Token: String?
        /// A name that the agent may use.
        package let example: String
        /// When the replaced tokens stop being valid, in seconds since 1970; nil if they are already invalid.
        package fileprivate(set) var formerTokenUntil: Int64?
    }

    /// The optional properties of a new agent.
    package struct Request {
        package var names: [String] = []
        package var ports: [String] = []
        /// A date, or a duration from now such as `90d`.
        package var expires: String?
        package var pins: [String] = []
        package var hasVersion1 = false

        package init() {}
    }

    private let settings: GatewaySettings
    /// The agents file.
    package let path: String

    /// - Parameter settings: the settings of the agents' gateway.
    package init(settings: GatewaySettings) throws(SettingsErrors) {
        self.settings = settings
        switch settings.authentication {
        case .byDefault(let path), .file(let path): self.path = path
        case .open, .hook:
            throw SettingsErrors([
                SettingsError("option --auth", "this gateway does not use an agents file")
            ])
        }
    }

    /// The port of the gateway's first `listen` address, used when `--host` names no port.
    package var port: UInt16 { self.settings.listen.first { $0.port != 0 }?.port ?? 20_000 }

    /// Whether the settings give no `listen` address.
    package var listensByDefault: Bool { self.settings.listensByDefault }

    /// Whether agents on the gateway's own machine need no login, because there is no agents file yet.
    package var isOpenToMachine: Bool {
        if case .byDefault(let path) = self.settings.authentication { !FileAccess.exists(path) } else { false }
    }

    /// The possible paths of the control socket of the gateway with these agents.
    ///
    /// - Parameter options: the command line from which the settings were read.
    package func controlPlaces(_ options: CommandOptions) throws(SettingsErrors) -> ControlSettings.Places {
        try self.settings.controlPlaces(options, agentsFile: self.path)
    }

    package func list() throws(SettingsErrors) -> [AgentEntry] {
        guard FileAccess.exists(self.path) else { return [] }
        return try AgentsFile(path: self.path).agents
    }

    /// - Parameter host: the address at which agents reach the gateway, `HOST:PORT`.
    /// - Returns: nil for an agent with pins, which needs no token.
    package func add(_ name: String, _ request: Request, host: String) throws(SettingsErrors) -> Invitation? {
        guard AgentEntry.isValid(name: name) else {
            throw SettingsErrors([
                SettingsError(
                    "argument NAME", "'\(PeerText.escaped(name))' is not an agent's name: \(AgentEntry.nameRule)")
            ]
            )
        }
        var agent = AgentEntry(name: name)
        try self.change(&agent, request)
        guard !agent.names.isEmpty else {
            throw SettingsErrors([
                SettingsError(
                    "option --names", "missing: the names that the agent may use, for example --names 'app-*'")
            ])
        }
        guard agent.pins.isEmpty || !request.hasVersion1 else {
            throw SettingsErrors([
                SettingsError(
                    "option --v1", "an agent with a pin gets no token: leave out --v1 or --pin")
            ])
        }
        // An agent that is authenticated by its key needs no token.
        let invitation = agent.pins.isEmpty ? try self.renew(&agent, hasVersion1: request.hasVersion1, host) : nil
        var editor = try AgentsFileEditor(path: self.path)
        try editor.add(agent)
        return invitation
    }

    /// - Parameter grace: how long the current tokens stay valid, for example `24h`. If nil, they become invalid at
    ///   once, and so does a former token.
    package func rotate(
        _ name: String, hasVersion1: Bool, grace: String? = nil, host: String
    ) throws(SettingsErrors) -> Invitation {
        let span = grace.flatMap { Timestamp.span($0) }
        if let grace, span == nil {
            throw SettingsErrors([
                SettingsError("option --grace", "'\(grace)' is not a duration: write 24h, 7d, 30m or 45s")
            ])
        }
        var editor = try AgentsFileEditor(path: self.path)
        let former = try editor.agent(name)
        var agent = former
        var invitation = try self.renew(&agent, hasVersion1: hasVersion1 || former.version1TokenHash != nil, host)
        agent.formerTokenHash = span == nil ? nil : former.tokenHash
        agent.formerVersion1TokenHash = span == nil ? nil : former.version1TokenHash
        let hasFormer = agent.formerTokenHash != nil || agent.formerVersion1TokenHash != nil
        agent.formerTokenUntil = hasFormer ? span.map { Timestamp.now + $0 } : nil
        invitation.formerTokenUntil = agent.formerTokenUntil
        let renewed = agent
        try editor.update(name) { $0 = renewed }
        return invitation
    }

    package func remove(_ name: String) throws(SettingsErrors) {
        var editor = try AgentsFileEditor(path: self.path)
        try editor.remove(name)
    }

    /// Also accepts the key of this certificate for the agent.
    package func pin(_ name: String, _ pin: String) throws(SettingsErrors) {
        if let fault = PinText.fault(of: pin) { throw SettingsErrors([SettingsError("argument PIN", fault)]) }
        if let owner = try self.list().first(where: { $0.name != name && $0.pins.contains(pin) }) {
            throw SettingsErrors([SettingsError("argument PIN", "the agent '\(owner.name)' has this key already")])
        }
        var editor = try AgentsFileEditor(path: self.path)
        try editor.update(name) { if !$0.pins.contains(pin) { $0.pins.append(pin) } }
    }

    private func change(_ agent: inout AgentEntry, _ request: Request) throws(SettingsErrors) {
        do throws(SettingsError) {
            for text in request.names {
                guard let pattern = NamePattern(text) else {
                    throw SettingsError(
                        "option --names", "'\(PeerText.escaped(text))' is not a pattern: \(NamePattern.rule)")
                }
                agent.names.append(pattern)
            }
            for text in request.ports { agent.ports.append(try PortRange(text, place: "option --ports")) }
            for pin in request.pins {
                if let fault = PinText.fault(of: pin) { throw SettingsError("option --pin", fault) }
                agent.pins.append(pin)
            }
            if let text = request.expires {
                guard let seconds = Timestamp.span(text).map({ Timestamp.now + $0 }) ?? Timestamp.seconds(text) else {
                    throw SettingsError(
                        "option --expires", "'\(text)' is neither a duration (90d, 12h) nor a date (2027-02-21)")
                }
                guard seconds > Timestamp.now else {
                    throw SettingsError("option --expires", "'\(text)' is in the past")
                }
                agent.expires = seconds
            }
        } catch { throw SettingsErrors([error]) }
    }

    private func renew(
        _ agent: inout AgentEntry, hasVersion1: Bool, _ host: String
    ) throws(SettingsErrors) -> Invitation {
        let made = AgentToken.make(name: agent.name, secret: SecureRandom.bytes(32))
        agent.tokenHash = SHA256.hash(Array(made.secret.utf8))
        var version1Token: String?
        if hasVersion1 {
            let token = AgentToken.makeVersion1(name: agent.name, secret: SecureRandom.bytes(32))
            agent.version1TokenHash = SHA256.hash(Array(token.utf8))
            version1Token = token
        }
        let identity = try self.gatewayIdentity()
        let line = "diglett://\(made.token)@\(host)"
        let example = agent.names.first?.text.replacing("*", with: "1") ?? "example"
        guard let certificate = self.settings.tlsFiles?.certificate, !identity.isSelfIssued else {
            return Invitation(
                token: made.token, line: "\(line)#\(identity.pin)", note: nil, version1Token: version1Token,
                example: example)
        }
        return Invitation(
            token: made.token, line: line, note: Self.note(on: identity, certificate, host),
            version1Token: version1Token, example: example)
    }

    /// Advice for a line without a pin. It has none because a renewed certificate may have another key; agents with the
    /// old pin would then be cut off.
    private static func note(on identity: Identity, _ certificate: String, _ host: String) -> String {
        let name = HostPort(host, defaultPort: 1)?.host ?? host
        guard identity.names(name) else {
            return "\(certificate) is not a certificate for \(name): pass --host with one of its names, or add "
                + "--pin \(identity.pin)"
        }
        return "the agent verifies \(certificate) with the certificate authorities of its system; if they do not trust "
            + "it, add --pin \(identity.pin)"
    }

    /// The gateway's identity, which is created if the gateway has never run.
    private func gatewayIdentity() throws(SettingsErrors) -> Identity {
        let state: StateDirectory
        do throws(SettingsError) {
            state = try StateDirectory(path: self.settings.stateDirectory, forOther: true)
        } catch { throw SettingsErrors([error]) }
        do throws(GatewayError) { return try GatewayIdentity.load(self.settings, state) } catch {
            throw SettingsErrors([SettingsError("the gateway's key", error.description)])
        }
    }
}
