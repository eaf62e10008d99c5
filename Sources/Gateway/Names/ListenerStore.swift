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

    private struct Held {
        let descriptor: Int32
        let place: SocketListener.Place
    }

    private let loop: EventLoop
    private let manager: ServiceManager
    private let logger: Logger
    /// A public port has several where it is on several addresses.
    private var held: [StoredName: [Held]] = [:]
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
            guard let key = StoredName(socket.name),
                let place = SocketListener.place(of: socket.descriptor)
            else {
                logger.warning("the kept listener '\(socket.name)' is of no use and was closed")
                self.end([socket.descriptor], socket.name)
                continue
            }
            if self.held[key]?.contains(where: { $0.place == place }) ?? false {
                // A copy of one and the same, most likely: it must not be ended.
                Glibc.close(socket.descriptor)
                continue
            }
            self.held[key, default: []].append(Held(descriptor: socket.descriptor, place: place))
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

    /// Ends what does not fit the settings any more.
    func retain(where fit: (StoredName, [SocketListener.Place]) -> Bool) {
        for (key, held) in self.held where !fit(key, held.map(\.place)) {
            for place in held.map(\.place) {
                self.logger.info(
                    "the kept listener of '\(key.name)', \(place), does not fit the settings any more",
                    metadata: .about([.name: key.name, .address: place]))
            }
            self.discard(key)
        }
        guard !self.held.isEmpty else { return }
        self.logger.info(
            """
            \(self.held.values.joined().count) listeners of the former run wait for their agents for \(self.holdMilliseconds / 1_000) s, \
            and visitors with them
            """)
    }

    /// The listeners that wait for this agent's name; those that do not fit its wish are ended.
    func take(
        _ kind: StoredName.Kind, _ name: Name, _ identity: AgentIdentity, where fits: (UInt16) -> Bool = { _ in true }
    ) -> [SocketListener] {
        let key = StoredName(kind: kind, name: name, identity: identity.id)
        guard let held = self.held[key] else { return [] }
        if case .tcp(let address) = held.first?.place, !fits(address.port) {
            self.discard(key)
            return []
        }
        self.held[key] = nil
        var listeners: [SocketListener] = []
        for one in held {
            do throws(UVError) {
                listeners.append(try SocketListener(loop: self.loop, adopting: one.descriptor, ownsFile: true))
            } catch {
                self.logger.error(
                    "the kept listener of '\(name)' cannot be used: \(error)",
                    metadata: .about([.name: name, .error: error]))
            }
        }
        guard listeners.count == held.count else {
            for listener in listeners { listener.shutDown() }
            self.manager.remove(key.description)
            return []
        }
        self.kept.insert(key)
        return listeners
    }

    /// Makes way for a name's new holder, and for an agent that wants its port for another name.
    func makeWay(for name: Name, _ identity: AgentIdentity, port: UInt16) {
        guard !self.held.isEmpty else { return }
        let owner = StoredName(kind: .tcp, name: name, identity: identity.id).owner
        for (key, held) in self.held {
            let isOthers = key.name == name && key.owner != owner
            var isWanted = false
            if case .tcp(let address) = held.first?.place { isWanted = address.port == port && key.owner == owner }
            if isOthers || isWanted && key.name != name { self.discard(key) }
        }
    }

    /// Call it about once a second.
    func tick() {
        guard !self.held.isEmpty, self.loop.now >= self.heldUntil else { return }
        let names = self.held.keys.map(\.name.text).sorted().joined(separator: ", ")
        self.logger.info("nobody has come back for \(names): visitors who wait there are reset")
        for key in self.held.keys { self.discard(key) }
    }

    private func discard(_ key: StoredName) {
        guard let held = self.held.removeValue(forKey: key) else { return }
        self.end(held.map(\.descriptor), key.description)
    }

    private func end(_ descriptors: [Int32], _ name: String) {
        for descriptor in descriptors {
            // It closes the descriptor also if it cannot be had.
            if let listener = try? SocketListener(loop: self.loop, adopting: descriptor, ownsFile: true) {
                listener.shutDown()
            }
        }
        self.manager.remove(name)
    }

    // MARK: - What this run has

    /// Has the manager keep an exposure's listeners, from now on.
    func keep(_ listeners: NameListeners, of name: Name, _ identity: AgentIdentity) {
        for (kind, listeners) in listeners.byKind {
            let key = StoredName(kind: kind, name: name, identity: identity.id)
            // Those that came from the store are there still.
            guard !self.kept.contains(key) else { continue }
            if self.manager.store(listeners.compactMap(\.descriptor), as: key.description) { self.kept.insert(key) }
        }
    }

    /// Ends an exposure's listeners, wherever they are open.
    func end(_ listeners: NameListeners, of name: Name, _ identity: AgentIdentity) {
        for (kind, listeners) in listeners.byKind {
            let key = StoredName(kind: kind, name: name, identity: identity.id)
            guard self.kept.remove(key) != nil else {
                for listener in listeners { listener.close() }
                continue
            }
            // Not when the manager comes to closing its copy: the port must be free for whoever is told so.
            for listener in listeners { listener.shutDown() }
            self.manager.remove(key.description)
        }
    }

    /// Closes our copies at the end of the gateway; those that the manager keeps go on taking visitors.
    func leave(_ listeners: NameListeners, of name: Name, _ identity: AgentIdentity) {
        for (kind, listeners) in listeners.byKind {
            let isKept = self.kept.remove(StoredName(kind: kind, name: name, identity: identity.id)) != nil
            for listener in listeners {
                if isKept { listener.leave() } else { listener.close() }
            }
        }
    }

    /// The same with those that nobody has come back for yet.
    func close() {
        for held in self.held.values.joined() { Glibc.close(held.descriptor) }
        self.held = [:]
    }
}
