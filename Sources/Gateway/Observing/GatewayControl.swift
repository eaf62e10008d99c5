internal import Control
internal import GatewayCore
internal import Journal
internal import Logging
internal import Modules
internal import Reactor
internal import Relay
internal import Settings
internal import Wire

/// What `diglett-server ctl` asks of a running gateway.
final class GatewayControl {
    /// A hundred years, in seconds.
    private static let longestBan = 36_500 * 86_400

    /// Those who only look must not keep those out who steer.
    private static let maxWatchers = 8

    private unowned let gateway: GatewayServer
    private var server: ControlServer?
    private var watchers: [ObjectIdentifier: ControlConversation] = [:]

    init(gateway: GatewayServer) { self.gateway = gateway }

    /// Listens; a default place that cannot be had is no reason not to start.
    func open(_ settings: ControlSettings?) throws(GatewayError) {
        guard let settings, let path = settings.path else { return }
        let access = SocketListener.Access(mode: settings.group == nil ? 0o600 : 0o660, group: settings.group)
        do throws(UVError) {
            self.server = try ControlServer(loop: self.gateway.loop, path: path, access: access, handler: self)
        } catch {
            let text = "the control socket \(path) cannot be had: \(error)"
            guard !settings.isExplicit else { throw GatewayError(.state, text) }
            self.gateway.logger.warning("\(text); name another place by --control PATH")
        }
    }

    func close() {
        self.server?.close()
        self.server = nil
    }

    // MARK: - Watching

    var isWatched: Bool { !self.watchers.isEmpty }

    func tell(_ news: @autoclosure () -> StreamNews) {
        guard self.isWatched else { return }
        let news = news()
        for watcher in self.watchers.values { watcher.say(news) }
    }

    private func watch(_ conversation: ControlConversation) {
        guard self.watchers.count < Self.maxWatchers else {
            return conversation.fail("\(Self.maxWatchers) watch already")
        }
        let id = ObjectIdentifier(conversation)
        self.watchers[id] = conversation
        conversation.onEnd = { [weak self] in self?.watchers[id] = nil }
        conversation.say(all: self.gateway.streamReports.map { StreamNews(.running, $0) })
    }
}

extension GatewayControl: ControlHandler {
    func asked(_ request: ControlRequest, by peer: ControlPeer, _ conversation: ControlConversation) {
        switch request.command {
        case .status: conversation.succeed(self.gateway.report)
        case .agents: conversation.succeed(self.gateway.linkReports)
        case .exposures: conversation.succeed(self.gateway.exposureReports)
        case .streams:
            if request.watch ?? false {
                self.watch(conversation)
            } else {
                conversation.succeed(self.gateway.streamReports)
            }
        case .penalties: conversation.succeed(self.gateway.penaltyReports)
        case .bans: conversation.succeed(self.gateway.banReports)
        case .kick, .ban, .unban, .drain, .reload, .logLevel:
            let result = self.change(request)
            let target = request.target.map { " '\(PeerText.escaped($0))'" } ?? ""
            let isDry = request.command == .reload && request.dryRun ?? false
            switch result {
            case .success(let notes):
                if !isDry {
                    self.gateway.logger.notice("\(peer) asked for \(request.command.rawValue)\(target)")
                }
                conversation.succeed(ControlNotes(notes))
                // The answer first: the end closes what is open.
                if request.command == .drain, !self.gateway.isDraining { self.gateway.stop() }
            case .failure(let refusal):
                self.gateway.logger.notice(
                    "\(peer) asked in vain for \(request.command.rawValue)\(target): \(PeerText.escaped(refusal.text))")
                conversation.fail(refusal.text)
            }
        }
    }

    private struct Refused: Error { let text: String }

    private func change(_ request: ControlRequest) -> Result<[String], Refused> {
        do throws(Refused) {
            switch request.command {
            case .kick: return .success(try self.kick(request.target ?? ""))
            case .ban: return .success(try self.ban(try self.network(request), seconds: request.seconds))
            case .unban: return .success(try self.unban(try self.network(request)))
            case .drain: return .success(self.drain())
            case .reload: return .success(try self.reload(isDry: request.dryRun ?? false))
            case .logLevel: return .success([try self.setLogLevel(request.target ?? "")])
            case .status, .agents, .exposures, .streams, .penalties, .bans: return .success([])
            }
        } catch { return .failure(error) }
    }

    /// - Parameter target: an agent, for all of its links, or the number of a link.
    private func kick(_ target: String) throws(Refused) -> [String] {
        let all = self.gateway.openSessions
        var sessions = all.filter { $0.identity?.id == target }
        // Of links that are over, what their visitors still get.
        var ended = self.gateway.deliveringSessions.filter { $0.visits.count(of: target) > 0 }
        // An agent may be called like a number.
        if sessions.isEmpty, ended.isEmpty {
            sessions = all.filter { $0.id == UInt64(target) }
            ended = self.gateway.deliveringSessions.filter { $0.id == UInt64(target) }
        }
        guard !sessions.isEmpty || !ended.isEmpty else {
            throw Refused(text: "there is no link of an agent '\(target)', and none with that number")
        }
        var notes: [String] = []
        for session in sessions {
            notes.append("ended link \(session.id) of \(session.label)")
            session.kick()
        }
        for session in ended {
            notes.append(
                "cut \(counted(session.link.openEdges.count, "stream")) of link \(session.id), which is over")
            session.link.cutDeliveries()
        }
        return notes
    }

    private func network(_ request: ControlRequest) throws(Refused) -> Network {
        do throws(SettingsError) { return try Network(request.target ?? "", place: "") } catch {
            throw Refused(text: error.reason)
        }
    }

    private func ban(_ network: Network, seconds: Int?) throws(Refused) -> [String] {
        if let seconds, !(1...Self.longestBan).contains(seconds) {
            throw Refused(text: "\(seconds) s is no time for a ban: write 1 to \(Self.longestBan), or none for good")
        }
        let until = seconds.map { self.gateway.loop.now + UInt64($0) * 1_000 }
        guard self.gateway.ban(network, until: until) else {
            throw Refused(text: "\(BanList.most) networks are banned already: a firewall can do more")
        }
        let cut = self.gateway.cut(network)
        return ["banned \(network)", "cut \(counted(cut.links, "link")) and \(counted(cut.streams, "stream")) of it"]
    }

    private func unban(_ network: Network) throws(Refused) -> [String] {
        let hadBan = self.gateway.unban(network)
        let hadPenalty = self.gateway.forgive(network)
        guard hadBan || hadPenalty else { throw Refused(text: "\(network) is neither banned nor has it a penalty") }
        return (hadBan ? ["\(network) is not banned any more"] : []) + (hadPenalty ? ["its penalty is forgotten"] : [])
    }

    private func drain() -> [String] {
        let isDraining = self.gateway.isDraining
        return [
            (isDraining ? "the gateway stops already" : "the gateway stops")
                + (self.gateway.streamCount > 0 ? ", \(self.gateway.whenStreamsAreDone)" : "")
        ]
    }

    private func reload(isDry: Bool) throws(Refused) -> [String] {
        let changes: [String]?
        do throws(SettingsErrors) { changes = try self.gateway.authenticator.pendingChanges() } catch {
            throw Refused(text: error.description)
        }
        let renewed: [String]
        do throws(GatewayError) { renewed = try self.gateway.certificate.pendingChanges() } catch {
            // It does not keep agents from what they are given or lose.
            guard !isDry else { throw Refused(text: error.description) }
            renewed = ["the certificate stays as it is: \(error.description)"]
        }
        if !isDry { self.gateway.reload() }
        guard let changes else { return ["every right is asked for again"] + renewed }
        return changes.isEmpty && renewed.isEmpty ? ["nothing has changed"] : changes + renewed
    }

    private func setLogLevel(_ text: String) throws(Refused) -> String {
        let levels: [String: Logger.Level] = ["info": .info, "debug": .debug, "trace": .trace]
        guard let level = levels[text] else { throw Refused(text: "'\(text)' is no level: info, debug or trace") }
        // The journal has one level for all who write to it.
        var logger = self.gateway.logger
        logger.logLevel = level
        return "the log level is \(text)"
    }
}
