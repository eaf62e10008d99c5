internal import GatewayCore
internal import Glibc
internal import Journal
internal import Logging
internal import Reactor
internal import Secure
internal import Supervision
package import Wire

/// What the service manager calls the listener of a name: `expose-tcp-NAME-OWNER`.
///
/// OWNER is the beginning of a hash of the identity that holds the name, so that nobody else is given the listener,
/// whatever has become of the file with the ports.
package struct StoredName: Hashable, Sendable, CustomStringConvertible {
    package enum Kind: String, CaseIterable, Sendable { case tcp, unix }

    /// Bytes of the hash: enough that nobody finds an identity with the same (2^128 tries).
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

    /// Nil for another text than `description` makes.
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

/// The public listeners of names, as far as the service manager keeps them while no gateway runs.
///
/// The kernel goes on taking visitors for a listener that somebody has open. After a start those of the former run are
/// held, unserved, until the agent is back and its name gets its listener again: no visitor is refused in between.
package final class ListenerStore {
    /// An agent comes back after a minute at the latest, and has 15 s to connect (``AgentMachine``).
    package static let holdMilliseconds: UInt64 = 90_000

    private let loop: EventLoop
    private let manager: ServiceManager
    private let logger: Logger
    /// A public port has several where it is on several addresses.
    private var held: [StoredName: [ListenerSocket]] = [:]
    private let holdMilliseconds: UInt64
    private let heldUntil: UInt64
    /// Those of exposures that the manager keeps.
    private var kept: Set<StoredName> = []

    /// Takes over what the manager has kept.
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
                // A copy of one and the same, most likely: it must not be ended.
                kept.close()
                continue
            }
            self.held[key, default: []].append(kept)
        }
    }

    deinit { self.close() }

    /// Names whose agents are not back yet.
    var heldNameCount: Int { Set(self.held.keys.map(\.name)).count }

    /// The files of unix sockets that are held.
    var paths: Set<String> {
        Set(self.held.values.joined().compactMap { if case .unix(let path) = $0.place { path } else { nil } })
    }

    // MARK: - What a former run has left

    /// Ends what no longer matches the settings.
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
            \(self.held.values.joined().count) listeners of the previous run wait \(self.holdMilliseconds / 1_000) s for their agents, \
            and visitors with them
            """)
    }

    /// The listeners that wait for this agent's name; those that do not fit its request are ended.
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

    /// Makes way for a name's new holder, and for an agent that wants its port for another name.
    func makeWay(for name: Name, _ identity: AgentIdentity, port: UInt16) {
        guard !self.held.isEmpty else { return }
        let owner = StoredName(kind: .tcp, name: name, identity: identity.id).owner
        for (key, held) in self.held {
            let isOthers = key.name == name && key.owner != owner
            let isWanted = held.first?.address?.port == port && key.owner == owner
            if isOthers || isWanted && key.name != name { self.discard(key) }
        }
    }

    /// Call it about once a second.
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

    // MARK: - What this run has

    /// Has the manager keep a name's listeners, from now on.
    func keep(_ listeners: NameListeners, of name: Name, _ identity: AgentIdentity) {
        for (kind, sockets) in listeners.byKind {
            let key = StoredName(kind: kind, name: name, identity: identity.id)
            // Those that came from the store are there still.
            guard !self.kept.contains(key) else { continue }
            if self.manager.store(sockets.compactMap(\.descriptor), as: key.description) { self.kept.insert(key) }
        }
    }

    /// Ends the listening of a name at once, wherever its sockets are open: the port must be free when its next user
    /// hears of it.
    func end(_ listeners: NameListeners, of name: Name, _ identity: AgentIdentity) {
        for (kind, sockets) in listeners.byKind {
            let key = StoredName(kind: kind, name: name, identity: identity.id)
            for socket in sockets { socket.shutDown() }
            if self.kept.remove(key) != nil { self.manager.remove(key.description) }
        }
    }

    /// At the end of the gateway: listeners that the manager keeps go on taking visitors, others end.
    func leave(_ listeners: NameListeners, of name: Name, _ identity: AgentIdentity) {
        for (kind, sockets) in listeners.byKind
        where self.kept.remove(StoredName(kind: kind, name: name, identity: identity.id)) == nil {
            for socket in sockets { socket.shutDown() }
        }
    }

    /// The same with those that nobody has come back for yet.
    func close() {
        for socket in self.held.values.joined() { socket.close() }
        self.held = [:]
    }
}
