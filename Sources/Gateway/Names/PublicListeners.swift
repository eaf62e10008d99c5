internal import GatewayCore
internal import Journal
internal import Logging
internal import Modules
internal import Reactor
internal import Settings
internal import Wire

/// Opens the public listeners of names: picks a port, or reuses listeners inherited from the previous run.
final class PublicListeners {
    /// Attempts to get a usable port from the kernel.
    private static let maxTries = 16

    let hosts: PublicHosts
    private let ports: PortPolicy
    /// Nil if names have no unix sockets.
    private let sockets: NameSockets?
    private let store: ListenerStore
    private let registrars: RegistrarSet

    init(
        hosts: PublicHosts, ports: PortPolicy, settings: GatewaySettings, store: ListenerStore, registrars: RegistrarSet
    ) throws(SettingsError) {
        self.hosts = hosts
        self.ports = ports
        self.store = store
        self.registrars = registrars
        self.sockets = try settings.exposeSockets.map { settings throws(SettingsError) in
            try NameSockets(settings: settings, keeping: store.paths)
        }
    }

    /// The number of inherited names whose agents have not reconnected yet.
    var waitingNameCount: Int { self.store.heldNameCount }

    /// Shuts down inherited listeners that do not fit the current settings.
    func start() {
        self.store.retain { key, places in
            switch key.kind {
            case .tcp:
                let addresses = places.compactMap { if case .tcp(let address) = $0 { address } else { nil } }
                guard let port = addresses.first?.port else { return false }
                return self.ports.allows(port) && addresses.count == places.count && self.hosts.areRight(addresses)
            case .unix:
                let paths = places.compactMap { if case .unix(let path) = $0 { path } else { nil } }
                return paths.count == places.count
                    && paths.allSatisfy { self.sockets?.isRight($0, for: key.name) ?? false }
            }
        }
    }

    /// Call about once a second.
    func tick() { self.store.tick() }

    func close() { self.store.close() }

    /// Logs a line about the agent of a name.
    typealias Warn = (
        Logger.Level, String, KeyValuePairs<LogKey, (any CustomStringConvertible & Sendable)?>
    ) -> Void

    /// Shuts a name's listeners down. With `leavesThem`, those that the service manager keeps stay open for the next
    /// gateway.
    func end(_ listeners: NameListeners, of name: Name, _ identity: AgentIdentity, leavesThem: Bool) {
        if leavesThem {
            self.store.leave(listeners, of: name, identity)
        } else {
            self.store.end(listeners, of: name, identity)
        }
    }

    /// Opens all listeners of a name, or none.
    ///
    /// - Parameters:
    ///   - isKept: whether a port is reserved for another name and should be assigned last.
    ///   - warn: receives failures that do not cause a refusal, and details that the agent does not get.
    func open(
        _ request: PortRequest, isKept: (UInt16) -> Bool, warn: Warn
    ) -> Result<NameListeners, Refusal> {
        let (name, identity) = (request.name, request.identity)
        self.store.makeWay(for: name, identity, port: request.wanted)
        var tcp: [ListenerSocket] = []
        if self.ports != .none {
            switch self.openPort(request, isKept, warn) {
            case .failure(let refusal): return .failure(refusal)
            case .success(let listeners): tcp = listeners
            }
        }
        var listeners = NameListeners(tcp: tcp, unix: nil)
        if let sockets = self.sockets {
            do throws(UVError) {
                if let held = self.store.take(.unix, name, identity).first {
                    listeners = NameListeners(tcp: tcp, unix: held)
                } else {
                    listeners = NameListeners(tcp: tcp, unix: try sockets.listen(name))
                }
            } catch {
                self.store.end(listeners, of: name, identity)
                for socket in listeners.all { socket.close() }
                let path = sockets.path(of: name)
                warn(
                    .error, "cannot create the socket \(path) of '\(name)': \(error)",
                    [.name: name, .socket: path, .error: error])
                return .failure(Refusal(code: .registrarFailed, text: "the name cannot be published now"))
            }
        }
        self.store.keep(listeners, of: name, identity)
        return .success(listeners)
    }

    /// Temporary; the agent retries.
    private static let leaving = Refusal(
        code: .registrarFailed, text: "its port may still get visitors of another agent's former name")

    /// Opens a public port: the requested one and no other, else the name's previous one, else a free one.
    private func openPort(
        _ request: PortRequest, _ isKept: (UInt16) -> Bool, _ warn: Warn
    ) -> Result<[ListenerSocket], Refusal> {
        let wanted = request.wanted
        let rules = PortRules(
            policy: self.ports, allowed: request.allowed,
            isLeaving: { port in self.registrars.isLeaving(port, exceptOf: request.identity.id) })
        let held = self.store.take(.tcp, request.name, request.identity) {
            wanted == 0 ? rules.allows($0) : wanted == $0
        }
        if !held.isEmpty { return .success(held) }
        if wanted != 0 {
            guard rules.isFree(wanted) else { return .failure(Self.leaving) }
            do throws(UVError) { return .success(try self.hosts.listen(port: wanted)) } catch {
                return .failure(self.refusal(error, "the public port \(wanted) is unavailable"))
            }
        }
        if let kept = request.kept, rules.allows(kept), rules.isFree(kept) {
            do throws(UVError) { return .success(try self.hosts.listen(port: kept)) } catch {
                warn(
                    .warning, "'\(request.name)' cannot get its previous port \(kept): \(error)",
                    [.name: request.name, .port: kept, .error: error])
            }
        }
        do throws(UVError) {
            return rules.candidates.isEmpty ? try self.systemsPort(rules) : try self.port(among: rules, isKept)
        } catch { return .failure(self.refusal(error, "no public port is available")) }
    }

    /// The refusal for an error of `listen`. Only a missing privilege is permanent.
    private func refusal(_ error: UVError, _ text: String) -> Refusal {
        switch error {
        case .addressInUse: Refusal(code: .portTaken, text: "\(text): \(error)")
        case .permissionDenied: Refusal(code: .portNotAllowed, text: "\(text): \(error)")
        case .addressNotAvailable:
            Refusal(code: .registrarFailed, text: "the gateway's machine lacks the address of its names (expose-bind)")
        case .tooManyFiles: Refusal(code: .overloaded, text: "\(text): \(error)")
        default: Refusal(code: .registrarFailed, text: "\(text): \(error)")
        }
    }

    /// Listens on a port that the kernel picks for the first address. The port may be taken on another address, or
    /// still receive visitors of another agent's former name. Ports of the latter kind stay open during the search, so
    /// that the kernel does not pick them again.
    private func systemsPort(_ rules: PortRules) throws(UVError) -> Result<[ListenerSocket], Refusal> {
        var others: [ListenerSocket] = []
        defer { for other in others { other.close() } }
        var refusal = Self.leaving
        for _ in 0..<Self.maxTries {
            do throws(UVError) {
                let found = try self.hosts.listen(port: 0)
                if let port = found.first?.address?.port, rules.isFree(port) { return .success(found) }
                others += found
            } catch {
                guard error == .addressInUse else { throw error }
                refusal = self.refusal(error, "no public port is free on all addresses")
            }
        }
        return .failure(refusal)
    }

    private func port(
        among rules: PortRules, _ isKept: (UInt16) -> Bool
    ) throws(UVError) -> Result<[ListenerSocket], Refusal> {
        let allowed = rules.candidates.joined().lazy.filter { rules.allows($0) }
        guard !allowed.isEmpty else {
            return .failure(
                Refusal(code: .portNotAllowed, text: "the gateway's expose-ports contain none of the agent's ports"))
        }
        let free = allowed.filter { rules.isFree($0) }
        // Ports reserved for other names come last, so that they are free when those names return.
        for keptOnes in [false, true] {
            for port in free where isKept(port) == keptOnes {
                do throws(UVError) { return .success(try self.hosts.listen(port: port)) } catch {
                    guard error == .addressInUse else { throw error }
                }
            }
        }
        guard free.count == allowed.count else { return .failure(Self.leaving) }
        let ranges = rules.candidates.map { "\($0.lowerBound) to \($0.upperBound)" }.joined(separator: ", ")
        return .failure(Refusal(code: .portTaken, text: "all public ports from \(ranges) are in use"))
    }
}
