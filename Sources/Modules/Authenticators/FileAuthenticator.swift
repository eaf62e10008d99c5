internal import Journal
package import Logging
package import Reactor
internal import Secure
package import Settings
internal import Wire

/// Authenticates agents by the agents file (`agents.toml`), and follows changes of the file.
///
/// A valid file replaces the agents read before. A file that is unreadable or has an error is logged and changes
/// nothing else. If the file may be missing (`fallback`), the other authenticator decides until the file was first
/// read.
package final class FileAuthenticator: Authenticator {
    /// Interval of the checks of the file and of expiry times; a withdrawn right ends within a second.
    private static let lookMilliseconds: UInt64 = 250

    private let path: String
    private let logger: Logger
    private let fallback: (any Authenticator)?
    private var agents: [String: AgentEntry] = [:]
    private var byPin: [String: String] = [:]
    private var byVersion1Token: [[UInt8]: String] = [:]
    private var stamp: FileStamp?
    /// The file's state at the last check; `stamp` is its state at the last read.
    private var seen: FileStamp?
    /// The file as read for `pendingChanges`, for the reload that often follows immediately; dropped at the next check.
    private var foreseen: (file: AgentsFile, stamp: FileStamp?)?
    private var hasLoaded = false
    /// Agents that have expired, and agents whose former token is still valid, as of the last check.
    private var expired: Set<String> = []
    private var withFormerToken: Set<String> = []
    private var timer: LoopTimer?
    private var rightsChanged: (() -> Void)?

    /// - Parameter fallback: decides until the file exists; nil if the file must exist.
    package init(loop: EventLoop, path: String, logger: Logger, fallback: (any Authenticator)?) throws(SettingsErrors) {
        self.path = path
        self.logger = logger
        self.fallback = fallback
        self.stamp = FileStamp(path: path)
        if fallback == nil || self.stamp != nil {
            self.take(try AgentsFile(path: path))
        }
        let timer = LoopTimer(loop: loop) { [unowned self] in self.look() }
        timer.start(after: Self.lookMilliseconds, repeating: Self.lookMilliseconds)
        self.timer = timer
    }

    // MARK: - The file

    private func look() {
        self.foreseen = nil
        let stamp = FileStamp(path: self.path)
        // A file that has changed since the last check may still be being written.
        let isWhole = stamp == nil || stamp == self.seen
        self.seen = stamp
        if stamp != self.stamp, isWhole {
            self.stamp = stamp
            self.read()
        }
        let (formerlyExpired, formerlyWithToken) = (self.expired, self.withFormerToken)
        self.lookAtTimes()
        guard (self.expired, self.withFormerToken) != (formerlyExpired, formerlyWithToken) else { return }
        for name in self.expired.subtracting(formerlyExpired).sorted() {
            self.logger.warning("the agent '\(name)' has expired", metadata: .about([.agent: name]))
        }
        for name in formerlyWithToken.subtracting(self.withFormerToken).sorted() {
            self.logger.notice("the former token of '\(name)' has expired", metadata: .about([.agent: name]))
        }
        self.rightsChanged?()
    }

    private func lookAtTimes() {
        let now = Timestamp.now
        self.expired = Set(self.agents.values.filter { $0.isExpired(at: now) }.map(\.name))
        self.withFormerToken = Set(self.agents.values.filter { $0.takesFormerTokens(at: now) }.map(\.name))
    }

    package func reload() {
        self.stamp = FileStamp(path: self.path)
        if self.stamp == nil, !self.hasLoaded, self.fallback != nil { return }
        self.read()
    }

    private func read() {
        do throws(SettingsErrors) {
            let foreseen = self.foreseen.flatMap { $0.stamp == self.stamp ? $0.file : nil }
            self.foreseen = nil
            if let foreseen { self.take(foreseen) } else { self.take(try self.load(self.stamp)) }
            self.logger.notice("read \(counted(self.agents.count, "agent")) from \(self.path)")
            self.rightsChanged?()
        } catch {
            for problem in error.all { self.logger.error("\(problem)") }
            self.logger.error("\(self.path): the agents remain unchanged until this is fixed")
        }
    }

    private func load(_ stamp: FileStamp?) throws(SettingsErrors) -> AgentsFile {
        // More likely a full disk or a slow editor than an intended change.
        if stamp?.isEmpty ?? false, !self.agents.isEmpty {
            throw SettingsErrors([
                SettingsError(self.path, "is empty; if that is intended, write the line '# no agents' into it")
            ])
        }
        return try AgentsFile(path: self.path)
    }

    package func pendingChanges() throws(SettingsErrors) -> [String]? {
        guard self.hasLoaded || FileAccess.exists(self.path) else { return [] }
        // Taken before the file is read: if the file changes during that, it is read again.
        let stamp = FileStamp(path: self.path)
        let file = try self.load(stamp)
        if stamp != nil { self.foreseen = (file, stamp) }
        let agents = file.agents
        let names = Set(agents.map(\.name))
        let gone = self.agents.keys.filter { !names.contains($0) }.sorted().map { "agent '\($0)': removed" }
        return gone
            + agents.compactMap { agent in
                guard let former = self.agents[agent.name] else { return "agent '\(agent.name)': added" }
                let what = agent.differences(from: former)
                return what.isEmpty ? nil : "agent '\(agent.name)': \(what.joined(separator: ", "))"
            }
    }

    private func take(_ file: AgentsFile) {
        self.hasLoaded = true
        self.agents = [:]
        self.byPin = [:]
        self.byVersion1Token = [:]
        for agent in file.agents {
            self.agents[agent.name] = agent
            for pin in agent.pins { self.byPin[pin] = agent.name }
            for hash in [agent.version1TokenHash, agent.formerVersion1TokenHash] {
                if let hash { self.byVersion1Token[hash] = agent.name }
            }
        }
        self.lookAtTimes()
    }

    // MARK: - Logins

    package func authenticate(
        _ request: LoginRequest, completion: @escaping (LoginVerdict) -> Void
    ) -> (any Cancellable)? {
        if !self.hasLoaded, let fallback = self.fallback {
            return fallback.authenticate(request, completion: completion)
        }
        switch self.find(request) {
        case .success(let found):
            if let reason = self.refusal(found.agent) {
                completion(.refused(.loginRefused, reason: "agent '\(found.agent.name)': \(reason)"))
            } else {
                completion(
                    .granted(
                        LoginGrant(
                            identity: found.agent.name, credential: found.credential,
                            limits: Self.limits(found.agent))))
            }
        case .failure(let reason): completion(.refused(.loginRefused, reason: reason.text))
        }
        return nil
    }

    private struct Unknown: Error { let text: String }

    /// Wrong credentials cost the same work as right ones, one hash and two comparisons, so timing reveals nothing.
    private func find(_ request: LoginRequest) -> Result<(agent: AgentEntry, credential: String), Unknown> {
        switch request.credentials {
        case .version1(let token):
            let hash = SHA256.hash(Array(token.utf8))
            guard let name = self.byVersion1Token[hash], let agent = self.agents[name] else {
                return .failure(Unknown(text: "no agent has this token of version 1"))
            }
            guard hash == agent.version1TokenHash || agent.takesFormerTokens(at: Timestamp.now) else {
                return .failure(Unknown(text: "an expired former token of '\(name)'"))
            }
            return .success((agent, "v1-token:\(Self.short(hash))"))
        case .version2(let login):
            if login.method == .token { return self.find(token: login.token) }
            guard let pin = request.certificatePin else {
                _ = self.find(token: "")
                return .failure(Unknown(text: "neither token nor certificate"))
            }
            guard let name = self.byPin[pin], let agent = self.agents[name] else {
                return .failure(Unknown(text: "no agent has the certificate \(pin)"))
            }
            return .success((agent, "pin:\(pin)"))
        }
    }

    private func find(token: String) -> Result<(agent: AgentEntry, credential: String), Unknown> {
        let parsed = AgentToken.parse(token)
        let hash = SHA256.hash(Array((parsed?.secret ?? "").utf8))
        let agent = parsed.flatMap { self.agents[$0.name] }
        let nothing = [UInt8](repeating: 0, count: AgentEntry.hashSize)
        let isPresent = SHA256.isEqual(hash, agent?.tokenHash ?? nothing)
        let isFormer = SHA256.isEqual(hash, agent?.formerTokenHash ?? nothing)
        guard let parsed else { return .failure(Unknown(text: "not a diglett token")) }
        guard let agent, agent.tokenHash != nil || agent.formerTokenHash != nil else {
            return .failure(Unknown(text: "no agent '\(PeerText.escaped(parsed.name, atMost: 64))' has a token"))
        }
        guard isPresent || isFormer else { return .failure(Unknown(text: "a wrong token for '\(agent.name)'")) }
        guard isPresent || agent.takesFormerTokens(at: Timestamp.now) else {
            return .failure(Unknown(text: "an expired former token of '\(agent.name)'"))
        }
        return .success((agent, "token:\(Self.short(hash))"))
    }

    /// Identifies a credential without revealing it.
    private static func short(_ hash: [UInt8]) -> String {
        Hex.text(hash.prefix(8))
    }

    private func refusal(_ agent: AgentEntry) -> String? {
        if agent.isDisabled { return "is disabled" }
        return agent.isExpired(at: Timestamp.now) ? "has expired" : nil
    }

    package func revocation(of grant: LoginGrant) -> Revocation? {
        guard self.hasLoaded else { return nil }
        guard let agent = self.agents[grant.identity] else {
            return grant.credential.isEmpty
                ? Revocation(
                    reason: "is a local agent without a login, and \(self.path) exists now",
                    told: "the gateway now has an agents file and accepts only agents with a token or key")
                : Revocation(reason: "is no longer in \(self.path)", told: "the agent was removed")
        }
        if let reason = self.refusal(agent) { return Revocation(reason) }
        func credentials(_ token: [UInt8]?, _ version1: [UInt8]?) -> [String] {
            [token.map { "token:\(Self.short($0))" }, version1.map { "v1-token:\(Self.short($0))" }].compactMap(\.self)
        }
        let present = agent.pins.map { "pin:\($0)" } + credentials(agent.tokenHash, agent.version1TokenHash)
        if present.contains(grant.credential) { return nil }
        guard credentials(agent.formerTokenHash, agent.formerVersion1TokenHash).contains(grant.credential) else {
            return Revocation("used a token or key that was removed")
        }
        guard !agent.takesFormerTokens(at: Timestamp.now) else { return nil }
        return Revocation("used a former token, which has expired")
    }

    private static func limits(_ agent: AgentEntry) -> AgentLimits {
        AgentLimits(links: agent.maxLinks, names: agent.maxNames, streams: agent.maxStreams)
    }

    package func limits(of grant: LoginGrant) -> AgentLimits? {
        self.hasLoaded ? self.agents[grant.identity].map(Self.limits) : nil
    }

    // MARK: - Names

    package func authorize(
        _ request: NameRequest, completion: @escaping (NameVerdict) -> Void
    ) -> (any Cancellable)? {
        if !self.hasLoaded, let fallback = self.fallback {
            return fallback.authorize(request, completion: completion)
        }
        guard let agent = self.agents[request.identity] else {
            completion(.refused(.nameNotAllowed, reason: "the agent is unknown"))
            return nil
        }
        if let reason = self.refusal(agent) {
            completion(.refused(.nameNotAllowed, reason: reason))
        } else if !agent.names.contains(where: { $0.matches(request.name) }) {
            let told = "'\(request.name)' is not among your names (\(Self.listed(agent.names.map(\.text))))"
            completion(.refused(.nameNotAllowed, reason: "no name pattern of '\(agent.name)' matches", told: told))
        } else if request.port != 0, !agent.ports.isEmpty, !agent.ports.contains(where: { $0.contains(request.port) }) {
            let told = "port \(request.port) is not among your ports (\(Self.listed(agent.ports.map(\.description))))"
            completion(
                .refused(
                    .portNotAllowed, reason: "'\(agent.name)' may not use the port \(request.port)", told: told))
        } else {
            completion(.granted(ports: agent.ports.map { $0.low...$0.high }))
        }
        return nil
    }

    /// The first of an agent's own patterns, as far as an answer has room for them.
    private static func listed(_ texts: [String]) -> String {
        guard !texts.isEmpty else { return "none" }
        let shown = texts.prefix(5).joined(separator: ", ")
        return texts.count > 5 ? "\(shown), ..." : shown
    }

    package func onChange(_ rightsChanged: @escaping () -> Void) {
        self.rightsChanged = rightsChanged
        self.fallback?.onChange(rightsChanged)
    }

    package func close() {
        self.timer?.close()
        self.timer = nil
        self.rightsChanged = nil
        self.fallback?.close()
    }
}
