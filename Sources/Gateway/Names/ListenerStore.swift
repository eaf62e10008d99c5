internal import GatewayCore
internal import Glibc
internal import Journal
internal import Logging
internal import Reactor
internal import Secure
internal import Supervision
package import Wire

/// The name under which the service manager stores a listener: `expose-tcp-NAME-OWNER`.
///
/// OWNER is a truncated hash of the identity that holds the name. No other agent can get the listener, even if the file
/// with the ports is lost or changed.
package struct StoredName: Hashable, Sendable, CustomStringConvertible {
    package enum Kind: String, CaseIterable, Sendable { case tcp, unix }

    /// Bytes of the hash: finding another identity with the same hash takes 2^128 tries.
    private static let ownerSize = 16
    static let prefix = "expose-"

    package let kind: Kind
    package let name: Name
    package let owner: String

    package init(kind: Kind, name: Name, identity: String) {
        self.kind = kind
        self.name = name
        self.owner = Hex.text(SHA256.hash(Array(identity.utf8)).prefix(Self.ownerSize))
    }

    /// Nil unless the text has the format of `description`.
    package init?(_ text: String) {
        guard text.hasPrefix(Self.prefix) else { return nil }
        let rest = text.dropFirst(Self.prefix.count)
        guard let first = rest.firstIndex(of: "-"), let last = rest.lastIndex(of: "-"), first < last,
            let kind = Kind(rawValue: String(rest[..<first])),
            let name = Name(String(rest[rest.index(after: first)..<last])),
            Hex.bytes(rest[rest.index(after: last)...], count: Self.ownerSize) != nil
        else { return nil }
        self.kind = kind
        self.name = name
        self.owner = String(rest[rest.index(after: last)...])
    }

    package var description: String { "\(Self.prefix)\(self.kind.rawValue)-\(self.name)-\(self.owner)" }
}

/// The public listeners that the service manager keeps across restarts of the gateway.
///
/// The kernel accepts connections into the backlog as long as any process holds the socket. After a start, the
/// inherited listeners are held without being served until the agent reconnects and its name gets its listener back. No
/// visitor is refused in between.
package final class ListenerStore {
    /// Agents retry after at most a minute, and have 15 s to connect (``AgentMachine``).
    package static let holdMilliseconds: UInt64 = 90_000

    private let loop: EventLoop
    private let manager: ServiceManager
    private let logger: Logger
    /// Inherited listeners that no agent has claimed yet. A public port on several addresses has several.
    private var held: [StoredName: [ListenerSocket]] = [:]
    private let holdMilliseconds: UInt64
    private let heldUntil: UInt64
    /// Listeners of current exposures that the manager keeps.
    private var kept: Set<StoredName> = []

    /// Takes over the listeners that the manager has kept.
    init(loop: EventLoop, manager: ServiceManager, holdMilliseconds: UInt64, logger: Logger) {
        self.loop = loop
        self.manager = manager
        self.logger = logger
        self.holdMilliseconds = holdMilliseconds
        self.heldUntil = loop.now + holdMilliseconds
        for socket in manager.sockets.take(where: { $0.hasPrefix(StoredName.prefix) }) {
            manager.noteStored(socket.name)
            guard let key = StoredName(socket.name), let kept = ListenerSocket(inherited: socket.descriptor) else {
                logger.warning("closed the kept listener '\(socket.name)', which is unusable")
                _ = shutdown(socket.descriptor, Int32(SHUT_RDWR))
                Glibc.close(socket.descriptor)
                manager.remove(socket.name)
                continue
            }
            if self.held[key]?.contains(where: { $0.place == kept.place }) ?? false {
                // Most likely a copy of the same socket: close it without shutting it down.
                kept.close()
                continue
            }
            self.held[key, default: []].append(kept)
        }
    }

    deinit { self.close() }

    /// The number of names whose agents have not reconnected yet.
    var heldNameCount: Int { Set(self.held.keys.map(\.name)).count }

    /// The paths of the held unix sockets.
    var paths: Set<String> {
        Set(self.held.values.joined().compactMap { if case .unix(let path) = $0.place { path } else { nil } })
    }

    // MARK: - Inherited listeners

    /// Shuts down held listeners that do not fit the current settings.
    func retain(where fit: (StoredName, [SocketListener.Place]) -> Bool) {
        for (key, held) in self.held where !fit(key, held.map(\.place)) {
            for place in held.map(\.place) {
                self.logger.info(
                    "the kept listener of '\(key.name)', \(place), no longer matches the settings",
                    metadata: .about([.name: key.name, .address: place]))
            }
            self.discard(key)
        }
        guard !self.held.isEmpty else { return }
        self.logger.info(
            """
            holding \(counted(self.held.values.joined().count, "listener")) of the previous run for \(self.holdMilliseconds / 1_000) s: \
            visitors wait until their agents return
            """)
    }

    /// The held listeners of an agent's name; empty without one. Those whose port does not fit are shut down.
    func take(
        _ kind: StoredName.Kind, _ name: Name, _ identity: AgentIdentity, where fits: (UInt16) -> Bool = { _ in true }
    ) -> [ListenerSocket] {
        let key = StoredName(kind: kind, name: name, identity: identity.id)
        guard let held = self.held[key] else { return [] }
        if let port = held.first?.address?.port, !fits(port) {
            self.discard(key)
            return []
        }
        self.held[key] = nil
        self.kept.insert(key)
        return held
    }

    /// Shuts down held listeners in the way of a request: those of the name under another identity, and one that this
    /// agent holds on the requested port for another name.
    func makeWay(for name: Name, _ identity: AgentIdentity, port: UInt16) {
        guard !self.held.isEmpty else { return }
        let owner = StoredName(kind: .tcp, name: name, identity: identity.id).owner
        for (key, held) in self.held {
            let isOthers = key.name == name && key.owner != owner
            let isWanted = held.first?.address?.port == port && key.owner == owner
            if isOthers || isWanted && key.name != name { self.discard(key) }
        }
    }

    /// Call about once a second.
    func tick() {
        guard !self.held.isEmpty, self.loop.now >= self.heldUntil else { return }
        let names = self.held.keys.map(\.name.text).sorted().joined(separator: ", ")
        self.logger.info("no agent returned for \(names): resetting their waiting visitors")
        for key in self.held.keys { self.discard(key) }
    }

    private func discard(_ key: StoredName) {
        guard let held = self.held.removeValue(forKey: key) else { return }
        for socket in held {
            socket.shutDown()
            socket.close()
        }
        self.manager.remove(key.description)
    }

    // MARK: - Listeners of this run

    /// Has the manager keep a name's listeners.
    func keep(_ listeners: NameListeners, of name: Name, _ identity: AgentIdentity) {
        for (kind, sockets) in listeners.byKind {
            let key = StoredName(kind: kind, name: name, identity: identity.id)
            // Listeners taken from the store are still in it.
            guard !self.kept.contains(key) else { continue }
            if self.manager.store(sockets.compactMap(\.descriptor), as: key.description) { self.kept.insert(key) }
        }
    }

    /// Stops listening at once, in all processes that have the sockets: the port must be free before its next user is
    /// told about it.
    func end(_ listeners: NameListeners, of name: Name, _ identity: AgentIdentity) {
        for (kind, sockets) in listeners.byKind {
            let key = StoredName(kind: kind, name: name, identity: identity.id)
            for socket in sockets { socket.shutDown() }
            if self.kept.remove(key) != nil { self.manager.remove(key.description) }
        }
    }

    /// The gateway is stopping: listeners that the manager keeps go on queueing visitors, the others are shut down.
    func leave(_ listeners: NameListeners, of name: Name, _ identity: AgentIdentity) {
        for (kind, sockets) in listeners.byKind
        where self.kept.remove(StoredName(kind: kind, name: name, identity: identity.id)) == nil {
            for socket in sockets { socket.shutDown() }
        }
    }

    /// Closes our copies of the listeners that no agent has claimed; the manager keeps them.
    func close() {
        for socket in self.held.values.joined() { socket.close() }
        self.held = [:]
    }
}
