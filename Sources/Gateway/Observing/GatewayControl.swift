internal import Control
internal import GatewayCore
internal import Journal
internal import Logging
internal import Modules
internal import Reactor
internal import Relay
internal import Settings
internal import Wire

/// Handles the commands of `diglett-server ctl`.
final class GatewayControl {
    /// A hundred years, in seconds.
    private static let longestBan = 36_500 * 86_400

    /// Limits watchers, so that they cannot lock out commands.
    private static let maxWatchers = 8

    private unowned let gateway: GatewayServer
    private var server: ControlServer?
    private var watchers: [ObjectIdentifier: ControlConversation] = [:]
    /// Watchers that have not received the list of open streams yet.
    private var comingWatchers: Set<ObjectIdentifier> = []

    init(gateway: GatewayServer) { self.gateway = gateway }

    /// Opens the control socket. Failure is an error only if the operator has configured the path.
    func open(_ settings: ControlSettings?) throws(GatewayError) {
        guard let settings, let path = settings.path else { return }
        let access = SocketListener.Access(mode: settings.group == nil ? 0o600 : 0o660, group: settings.group)
        do throws(UVError) {
            self.server = try ControlServer(loop: self.gateway.loop, path: path, access: access, handler: self)
        } catch {
            let text = "cannot open the control socket \(path): \(error)"
            guard !settings.isExplicit else { throw GatewayError(.state, text) }
            self.gateway.logger.warning("\(text); choose another path with --control PATH")
        }
    }

    func close() {
        self.server?.close()
        self.server = nil
    }

    // MARK: - Watching

    func tell(_ news: StreamNews) {
        for watcher in self.watchers.values { watcher.say(news) }
    }

    private func watch(_ conversation: ControlConversation) {
        guard self.watchers.count + self.comingWatchers.count < Self.maxWatchers else {
            return conversation.fail("\(Self.maxWatchers) watchers are connected already")
        }
        let id = ObjectIdentifier(conversation)
        self.comingWatchers.insert(id)
        conversation.onEnd = { [weak self] in self?.watcherLeft(id) }
        // Turn on news before the census, so that no stream between the two is missed.
        self.gateway.worker.send(.watch(true))
        self.gateway.worker.census(withStreams: true) { [weak self, weak conversation] census in
            guard let self, let conversation, self.comingWatchers.remove(id) != nil else { return }
            self.watchers[id] = conversation
            conversation.say(all: self.gateway.streamReports(census).map { StreamNews(.running, $0) })
        }
    }

    private func watcherLeft(_ id: ObjectIdentifier) {
        self.watchers[id] = nil
        self.comingWatchers.remove(id)
        if self.watchers.isEmpty, self.comingWatchers.isEmpty { self.gateway.worker.send(.watch(false)) }
    }
}

extension GatewayControl: ControlHandler {
    func asked(_ request: ControlRequest, by peer: ControlPeer, _ conversation: ControlConversation) {
        let gateway = self.gateway
        switch request.command {
        case .status: gateway.worker.census { conversation.succeed(gateway.report($0)) }
        case .agents: gateway.worker.census { conversation.succeed(gateway.linkReports($0)) }
        case .exposures: gateway.worker.census { conversation.succeed(gateway.exposureReports($0)) }
        case .streams:
            if request.watch ?? false { return self.watch(conversation) }
            gateway.worker.census(withStreams: true) { conversation.succeed(gateway.streamReports($0)) }
        case .penalties: conversation.succeed(gateway.penaltyReports)
        case .bans: conversation.succeed(gateway.banReports)
        case .kick, .ban, .unban, .drain, .reload, .logLevel:
            self.change(request) { [weak self] in self?.answer(request, by: peer, conversation, $0) }
        }
    }

    private func answer(
        _ request: ControlRequest, by peer: ControlPeer, _ conversation: ControlConversation,
        _ result: Result<[String], Refused>
    ) {
        let target = request.target.map { " '\(PeerText.escaped($0))'" } ?? ""
        switch result {
        case .success(let notes):
            if request.command != .reload || request.dryRun != true {
                self.gateway.logger.notice("\(peer) requested \(request.command.rawValue)\(target)")
            }
            conversation.succeed(ControlNotes(notes))
            // After the answer, because stopping closes the conversation.
            if request.command == .drain, !self.gateway.isDraining { self.gateway.stop() }
        case .failure(let refusal):
            self.gateway.logger.notice(
                "\(request.command.rawValue)\(target) by \(peer) failed: \(PeerText.escaped(refusal.text))")
            conversation.fail(refusal.text)
        }
    }

    private struct Refused: Error { let text: String }

    private typealias Completion = (Result<[String], Refused>) -> Void

    private func change(_ request: ControlRequest, completion: @escaping Completion) {
        do throws(Refused) {
            switch request.command {
            case .kick: self.kick(request.target ?? "", completion: completion)
            case .ban: try self.ban(try self.network(request), seconds: request.seconds, completion: completion)
            case .unban: completion(.success(try self.unban(try self.network(request))))
            case .drain: self.drain(completion: completion)
            case .reload: completion(.success(try self.reload(isDry: request.dryRun ?? false)))
            case .logLevel: completion(.success([try self.setLogLevel(request.target ?? "")]))
            case .status, .agents, .exposures, .streams, .penalties, .bans: completion(.success([]))
            }
        } catch { completion(.failure(error)) }
    }

    /// - Parameter target: an agent, for all its links, or the number of a link.
    private func kick(_ target: String, completion: @escaping Completion) {
        let agents = self.gateway.agents
        self.gateway.worker.census { [weak self] census in
            // Ended links count only while they still deliver bytes to visitors.
            func chosen(_ isChosen: (AgentSession) -> Bool) -> (open: [AgentSession], ended: [AgentSession]) {
                let ended = agents.delivering.values.filter { census.streamsByLink[$0.id] ?? 0 > 0 }
                return (agents.openSessions.filter(isChosen), ended.filter(isChosen).sorted { $0.id < $1.id })
            }
            var sessions = chosen { $0.label.identity?.id == target }
            // An agent's name may look like a number, so names take precedence.
            if sessions.open.isEmpty, sessions.ended.isEmpty { sessions = chosen { $0.id == UInt64(target) } }
            guard !sessions.open.isEmpty || !sessions.ended.isEmpty else {
                let text = "no connected agent or link '\(target)': 'ctl agents' lists them"
                return completion(.failure(Refused(text: text)))
            }
            var notes: [String] = []
            for session in sessions.open {
                notes.append("closed link \(session.id) of \(session.label)")
                agents.kick(session)
            }
            for session in sessions.ended {
                let count = census.streamsByLink[session.id] ?? 0
                notes.append("cut \(counted(count, "stream")) of link \(session.id), which is closing")
                self?.gateway.worker.send(.cutDeliveries(session.id))
            }
            completion(.success(notes))
        }
    }

    private func network(_ request: ControlRequest) throws(Refused) -> Network {
        do throws(SettingsError) { return try Network(request.target ?? "", place: "") } catch {
            throw Refused(text: error.reason)
        }
    }

    private func ban(_ network: Network, seconds: Int?, completion: @escaping Completion) throws(Refused) {
        if let seconds, !(1...Self.longestBan).contains(seconds) {
            throw Refused(
                text:
                    "\(seconds) s is not a duration for a ban: write 1 to \(Self.longestBan), or none for a permanent ban"
            )
        }
        let until = seconds.map { self.gateway.loop.now + UInt64($0) * 1_000 }
        guard self.gateway.agents.ban(network, until: until) else {
            throw Refused(text: "\(BanList.maxCount) networks are banned already: use a firewall for more")
        }
        self.gateway.worker.ask(.cut(network)) { answer in
            guard case .cut(let links, let streams) = answer else { return }
            completion(
                .success(["banned \(network)", "cut \(counted(links, "link")) and \(counted(streams, "stream")) of it"])
            )
        }
    }

    private func unban(_ network: Network) throws(Refused) -> [String] {
        let hadBan = self.gateway.agents.unban(network)
        let hadPenalty = self.gateway.forgive(network)
        guard hadBan || hadPenalty else { throw Refused(text: "\(network) is not banned and has no penalty") }
        return (hadBan ? ["\(network) is no longer banned"] : []) + (hadPenalty ? ["its penalty was reset"] : [])
    }

    private func drain(completion: @escaping Completion) {
        let text = self.gateway.isDraining ? "the gateway is stopping already" : "the gateway is stopping"
        self.gateway.worker.census { census in
            let count = census.streamCount
            let waiting = GatewayServer.waiting(streams: count)
            completion(.success([text + (count > 0 ? ": \(waiting)" : "")]))
        }
    }

    private func reload(isDry: Bool) throws(Refused) -> [String] {
        let changes: [String]?
        do throws(SettingsErrors) { changes = try self.gateway.authenticator.pendingChanges() } catch {
            throw Refused(text: error.description)
        }
        let renewed: [String]
        do throws(GatewayError) { renewed = try self.gateway.certificate.pendingChanges() } catch {
            // A bad certificate must not block a change of rights.
            guard !isDry else { throw Refused(text: error.description) }
            renewed = ["the certificate was not changed: \(error.description)"]
        }
        if !isDry { self.gateway.reload() }
        guard let changes else { return ["checking all logins and names again"] + renewed }
        return changes.isEmpty && renewed.isEmpty ? ["no changes"] : changes + renewed
    }

    private func setLogLevel(_ text: String) throws(Refused) -> String {
        let levels: [String: Logger.Level] = ["info": .info, "debug": .debug, "trace": .trace]
        guard let level = levels[text] else {
            throw Refused(text: "'\(text)' is not a log level: use info, debug or trace")
        }
        // All copies of the logger share the journal's level.
        var logger = self.gateway.logger
        logger.logLevel = level
        return "the log level is \(text)"
    }
}
