internal import Control
internal import Journal
internal import Logging
internal import Modules
internal import Reactor
internal import Registry
internal import Relay
internal import Settings
internal import Wire

/// A refusal with its code and the text for the agent.
struct Refusal: Error, Equatable {
    let code: ErrorCode
    let text: String
}

/// Which names are exposed: gives them to agents, finds their public ports, has the registrars publish and withdraw
/// them.
final class ExposureBook {
    /// Ports that the system may give before one is free.
    private static let mostTries = 16

    private let loop: EventLoop
    private let peerLog: PeerLog
    let hosts: PublicHosts
    private let publicPorts: PublicPorts
    /// Nil: names have no unix sockets.
    private let sockets: NameSockets?
    private let publicURL: String?
    private let mostNames: Int
    private let registrars: [RegistrarDriver]
    private let ports: PortStore
    private let store: ListenerStore
    /// The gateway stops: listeners are left to whoever keeps them for the next one.
    private var isStopping = false
    private var registry: Registry

    init(
        loop: EventLoop, peerLog: PeerLog, hosts: PublicHosts, settings: GatewaySettings, mostNames: Int,
        registrars: [any Registrar], ports: PortStore, store: ListenerStore
    ) throws(SettingsError) {
        self.loop = loop
        self.peerLog = peerLog
        self.hosts = hosts
        self.publicPorts = settings.exposePorts
        self.publicURL = settings.publicURL
        self.sockets = try settings.exposeSockets.map { settings throws(SettingsError) in
            try NameSockets(loop: loop, settings: settings, keeping: store.paths)
        }
        self.store = store
        self.mostNames = mostNames
        self.registry = Registry(maximumNamesPerLink: settings.limits.namesPerLink)
        self.registrars = registrars.map {
            RegistrarDriver(loop: loop, registrar: $0, limits: WithdrawalLimits(settings.limits), log: peerLog)
        }
        self.ports = ports
    }

    /// Call it about once a second.
    func tick() {
        self.ports.tick()
        self.store.tick()
    }

    /// Has all registrars take back what a former run has left behind; names are published after that.
    func start() {
        self.store.retain { key, places in
            switch key.kind {
            case .tcp:
                let addresses = places.compactMap { if case .tcp(let address) = $0 { address } else { nil } }
                guard let port = addresses.first?.port else { return false }
                let isInRange =
                    self.publicPorts.range?.contains(port)
                    ?? (self.publicPorts == .any && port >= PortRules.firstUserPort)
                return isInRange && addresses.count == places.count && self.hosts.areRight(addresses)
            case .unix:
                let paths = places.compactMap { if case .unix(let path) = $0 { path } else { nil } }
                return paths.count == places.count
                    && paths.allSatisfy { self.sockets?.isRight($0, for: key.name) ?? false }
            }
        }
        for registrar in self.registrars { registrar.start() }
    }

    /// Has the registrars look after what they have published.
    func reconcile() {
        for registrar in self.registrars { registrar.reconcile() }
    }

    /// Names of a former run whose agents are not back yet.
    var waitingNameCount: Int { self.store.heldNameCount }

    /// From here on names are withdrawn because the gateway stops.
    func willStop() { self.isStopping = true }

    /// What is being withdrawn is given a moment.
    func close() {
        self.ports.saveNow()
        self.store.close()
        for registrar in self.registrars { registrar.close() }
    }

    /// Gives a name to an agent that has the right to it: a new exposure, or that of its former link.
    func claim(
        _ name: Name, _ holder: Registry.Holder, port: UInt16, allowed: [ClosedRange<UInt16>], session: AgentSession,
        gateway: GatewayServer
    ) -> Result<Exposure, Refusal> {
        guard !gateway.isDraining else { return .failure(Refusal(code: .drain, text: "the gateway stops")) }
        if let text = self.portRefusal(port, holder.identity, gateway) {
            return .failure(Refusal(code: .portNotAllowed, text: text))
        }
        if self.registry.holder(of: name) == nil {
            guard self.registry.nameCount < self.mostNames else {
                return .failure(Refusal(code: .overloaded, text: "the gateway has as many names as it may have"))
            }
            let payer = session.payer ?? holder.identity.id
            guard !self.registrars.contains(where: { $0.isFull(for: name, of: payer) }) else {
                gateway.metrics.hit(.withdrawals)
                return .failure(
                    Refusal(code: .overloaded, text: "too many of the agent's former names are still to be withdrawn"))
            }
        }
        switch self.registry.register(name, holder, most: session.limits.names, now: self.loop.now) {
        case .refused(let code, let text): return .failure(Refusal(code: code, text: text))
        case .takenOver(let former, let code):
            let old = gateway.session(former.link)
            if let old, let exposure = old.exposures.first(where: { $0.name == name }) {
                old.lost(exposure, code)
                if port == 0 || port == exposure.address?.port {
                    exposure.move(to: session, number: holder.exposure)
                    return .success(exposure)
                }
                self.takeBack(exposure)
            }
        case .granted: break
        }
        switch self.openListeners(name, session, holder.identity, wanted: port, allowed: allowed) {
        case .failure(let refusal):
            self.registry.unregister(name, link: holder.link, exposure: holder.exposure)
            return .failure(refusal)
        case .success(let listeners):
            self.store.keep(listeners, of: name, holder.identity)
            if let address = listeners.address { self.ports.note(address.port, for: name, holder.identity) }
            return .success(
                Exposure(
                    name: name, identity: holder.identity, listeners: listeners, number: holder.exposure,
                    session: session, gateway: gateway))
        }
    }

    /// In the order of the configuration; several of a kind have numbers.
    var registrarStates: [GatewayFigures.RegistrarState] {
        var counts: [Substring: Int] = [:]
        return self.registrars.map { registrar in
            // The rest of the label may tell what strangers need not know, a webhook's URL for instance.
            let kind = registrar.label.prefix { $0 != " " }
            counts[kind, default: 0] += 1
            let count = counts[kind] ?? 1
            return GatewayFigures.RegistrarState(
                name: count == 1 ? String(kind) : "\(kind)-\(count)", isFailing: registrar.isFailing,
                figures: registrar.figures)
        }
    }

    /// What an agent is told of where its name is.
    func shown(_ exposure: Exposure) -> String {
        if let url = self.publicURL { return url.replacing("{name}", with: exposure.name.text) }
        return exposure.address?.description ?? "behind the gateway's proxy"
    }

    /// Why a wanted port is not given, if so.
    private func portRefusal(_ port: UInt16, _ identity: AgentIdentity, _ gateway: GatewayServer) -> String? {
        guard port != 0 else { return nil }
        switch self.publicPorts {
        case .none: return "the gateway has no public ports"
        case .range(let range) where !range.contains(port):
            return "the port \(port) is not between \(range.low) and \(range.high)"
        case .any where port < PortRules.firstUserPort: return "the port \(port) is one of the system's"
        case .range, .any: break
        }
        // Of those who are away, nobody knows whether they come back; who is here keeps what it had.
        if let keeper = self.ports.keeper(of: port), keeper != identity, gateway.hasLink(of: keeper) {
            return "the port \(port) is another agent's"
        }
        return nil
    }

    var nameCount: Int { self.registry.nameCount }

    func isOnlyAgent(_ agent: AgentIdentity) -> Bool { self.registry.isOnlyHolder(agent) }

    var registrarReports: [GatewayReport.Registrar] {
        self.registrars.map {
            GatewayReport.Registrar(name: $0.label, failure: $0.failure, pending: $0.pendingCount)
        }
    }

    /// How many names an agent has over all its links, one left out.
    func nameCount(of identity: AgentIdentity, except name: Name) -> Int {
        self.registry.nameCount(of: identity, except: name)
    }

    private func openListeners(
        _ name: Name, _ session: AgentSession, _ identity: AgentIdentity, wanted: UInt16, allowed: [ClosedRange<UInt16>]
    ) -> Result<NameListeners, Refusal> {
        self.store.makeWay(for: name, identity, port: wanted)
        var tcp: [SocketListener] = []
        if self.publicPorts != .none {
            switch self.openPort(name, session, identity, wanted: wanted, allowed: allowed) {
            case .failure(let refusal): return .failure(refusal)
            case .success(let listeners): tcp = listeners
            }
        }
        guard let sockets = self.sockets else { return .success(NameListeners(tcp: tcp, unix: nil)) }
        do throws(UVError) {
            if let held = self.store.take(.unix, name, identity).first {
                return .success(NameListeners(tcp: tcp, unix: held))
            }
            return .success(NameListeners(tcp: tcp, unix: try sockets.listen(name)))
        } catch {
            self.store.end(NameListeners(tcp: tcp, unix: nil), of: name, identity)
            self.peerLog.write(
                .error, .detail, of: .agent(identity.id),
                "\(session.label): '\(name)' cannot have its socket \(sockets.path(of: name)): \(error)",
                session.about([.name: name, .socket: sockets.path(of: name), .error: error]))
            return .failure(Refusal(code: .registrarFailed, text: "the name cannot be made reachable now"))
        }
    }

    /// That passes: the agent asks again.
    private static let leaving = Refusal(
        code: .registrarFailed, text: "visitors of another agent's former name may still come to its port")

    /// Finds a public port: the wanted one and no other, else the one that the name had, else a free one.
    ///
    /// - Parameter allowed: where the agent's ports are; empty for all of the gateway's.
    private func openPort(
        _ name: Name, _ session: AgentSession, _ identity: AgentIdentity, wanted: UInt16, allowed: [ClosedRange<UInt16>]
    ) -> Result<[SocketListener], Refusal> {
        let rules = PortRules(
            range: self.publicPorts.range, allowed: allowed,
            isLeaving: { port in self.registrars.contains { $0.isLeaving(port, exceptOf: identity.id) } })
        let held = self.store.take(.tcp, name, identity) { wanted == 0 ? rules.allows($0) : wanted == $0 }
        if !held.isEmpty { return .success(held) }
        if wanted != 0 {
            guard rules.isFree(wanted) else { return .failure(Self.leaving) }
            do throws(UVError) { return .success(try self.hosts.listen(self.loop, port: wanted)) } catch {
                return .failure(self.refusal(error, "the public port \(wanted) is unavailable"))
            }
        }
        if let kept = self.ports.port(of: name, for: identity), rules.allows(kept), rules.isFree(kept) {
            do throws(UVError) { return .success(try self.hosts.listen(self.loop, port: kept)) } catch {
                self.peerLog.write(
                    .warning, .detail, of: .agent(identity.id),
                    "\(session.label): '\(name)' cannot have its port \(kept) again: \(error)",
                    session.about([.name: name, .port: kept, .error: error]))
            }
        }
        do throws(UVError) {
            return rules.candidates.isEmpty ? try self.systemsPort(rules) : try self.port(among: rules)
        } catch { return .failure(self.refusal(error, "no public port is available")) }
    }

    /// The refusal of a name without a listener. Only a missing privilege is permanent.
    private func refusal(_ error: UVError, _ text: String) -> Refusal {
        switch error {
        case .addressInUse: Refusal(code: .portTaken, text: "\(text): \(error)")
        case .permissionDenied: Refusal(code: .portNotAllowed, text: "\(text): \(error)")
        case .addressNotAvailable:
            Refusal(code: .registrarFailed, text: "the gateway's machine does not have the address of its names yet")
        case .tooManyFiles: Refusal(code: .overloaded, text: "\(text): \(error)")
        default: Refusal(code: .registrarFailed, text: "\(text): \(error)")
        }
    }

    /// At a port that the system chooses for the first address; on another one it may be taken.
    private func systemsPort(_ rules: PortRules) throws(UVError) -> Result<[SocketListener], Refusal> {
        var others: [SocketListener] = []
        defer { for other in others { other.close() } }
        var refusal = Self.leaving
        for _ in 0..<Self.mostTries {
            do throws(UVError) {
                let found = try self.hosts.listen(self.loop, port: 0)
                if let port = found.first?.port, rules.isFree(port) { return .success(found) }
                others += found
            } catch {
                guard error == .addressInUse else { throw error }
                refusal = self.refusal(error, "no public port is free on all addresses")
            }
        }
        return .failure(refusal)
    }

    private func port(among rules: PortRules) throws(UVError) -> Result<[SocketListener], Refusal> {
        let allowed = rules.candidates.joined().lazy.filter { rules.allows($0) }
        guard !allowed.isEmpty else {
            return .failure(Refusal(code: .portNotAllowed, text: "the gateway has none of the agent's ports"))
        }
        let free = allowed.filter { rules.isFree($0) }
        // Ports that others had come last, so that they find them free when they return.
        for keptOnes in [false, true] {
            for port in free where self.ports.isKept(port) == keptOnes {
                do throws(UVError) { return .success(try self.hosts.listen(self.loop, port: port)) } catch {
                    guard error == .addressInUse else { throw error }
                }
            }
        }
        guard free.count == allowed.count else { return .failure(Self.leaving) }
        let ranges = rules.candidates.map { "\($0.lowerBound) to \($0.upperBound)" }.joined(separator: ", ")
        return .failure(Refusal(code: .portTaken, text: "all public ports from \(ranges) are in use"))
    }

    /// Has all registrars publish the exposure, then tells its session.
    func publish(_ exposure: Exposure) {
        if exposure.isPublished {
            exposure.session?.published(exposure, failure: nil)
            return
        }
        var waiting = self.registrars.count
        var failures: [String] = []
        for registrar in self.registrars {
            registrar.publish(exposure.asPublic) { [weak exposure] failure in
                if let failure { failures.append(failure) }
                waiting -= 1
                guard waiting == 0, let exposure else { return }
                exposure.session?.published(
                    exposure, failure: failures.isEmpty ? nil : "the name cannot be made reachable now")
            }
        }
    }

    /// Takes an exposure back: no more visitors, the name is free.
    func withdraw(_ exposure: Exposure, from session: AgentSession) {
        self.registry.unregister(exposure.name, link: session.id, exposure: exposure.number)
        self.takeBack(exposure)
    }

    private func takeBack(_ exposure: Exposure) {
        // First: whoever reads that the name is gone finds it so.
        exposure.close()
        if self.isStopping {
            self.store.leave(exposure.listeners, of: exposure.name, exposure.identity)
        } else {
            self.store.end(exposure.listeners, of: exposure.name, exposure.identity)
        }
        for registrar in self.registrars { registrar.withdraw(exposure.asPublic) }
    }
}
