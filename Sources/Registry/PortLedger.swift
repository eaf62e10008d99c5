package import Wire

/// Remembers which public port a name had, so that the same agent gets the same port again.
package struct PortLedger: Equatable, Sendable {
    package struct Entry: Equatable, Sendable {
        package let name: String
        package let identity: String
        package let port: UInt16

        package init(name: String, identity: String, port: UInt16) {
            self.name = name
            self.identity = identity
            self.port = port
        }
    }

    /// Bounds the file; the entry that was used longest ago goes first.
    package static let maximumEntries = 4_096

    /// So that no single agent can push out what others have; twice what its links can hold at once.
    package static let maximumPerIdentity = 512

    /// In the order of their last use, the newest last.
    package private(set) var entries: [Entry]
    private var kept: Set<UInt16>

    package init(_ entries: [Entry] = []) {
        self.entries = Array(entries.suffix(Self.maximumEntries))
        self.kept = Set(self.entries.map(\.port))
    }

    package func port(of name: Name, for identity: AgentIdentity) -> UInt16? {
        self.entries.last { $0.name == name.text && $0.identity == identity.id }?.port
    }

    /// The identity for which a port is remembered.
    package func keeper(of port: UInt16) -> AgentIdentity? {
        guard self.kept.contains(port) else { return nil }
        return self.entries.last { $0.port == port }.map { AgentIdentity(id: $0.identity) }
    }

    /// Whether a port is remembered for somebody else and should not be given away while others are free.
    package func isKept(_ port: UInt16) -> Bool { self.kept.contains(port) }

    /// Notes the port; false when nothing changed that would have to be saved.
    package mutating func note(_ port: UInt16, for name: Name, _ identity: AgentIdentity) -> Bool {
        let entry = Entry(name: name.text, identity: identity.id, port: port)
        if self.entries.last == entry { return false }
        let isKnown = self.entries.contains(entry)
        // A port has one owner: whoever had it before has lost it.
        self.entries.removeAll { ($0.name == name.text && $0.identity == identity.id) || $0.port == port }
        self.entries.append(entry)
        if self.entries.count(where: { $0.identity == identity.id }) > Self.maximumPerIdentity,
            let oldest = self.entries.firstIndex(where: { $0.identity == identity.id })
        {
            self.entries.remove(at: oldest)
        }
        if self.entries.count > Self.maximumEntries { self.entries.removeFirst() }
        self.kept = Set(self.entries.map(\.port))
        return !isKnown
    }
}
