package import Wire

/// Remembers the public port of each name, so that an agent gets the same port again after a reconnect or restart.
///
/// Each port has at most one entry, and so does each pair of name and identity.
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

        fileprivate var owner: Owner { Owner(name: self.name, identity: self.identity) }
    }

    fileprivate struct Owner: Hashable, Sendable {
        let name: String
        let identity: String
    }

    /// Bounds the file: twice the names that a gateway holds at once. The least recently used entry is dropped first.
    package static let maximumEntries = 8_192

    /// Entries per identity, so that one agent cannot push out the entries of all others.
    package let maximumPerIdentity: Int
    private var byPort: [UInt16: Entry] = [:]
    private var ports: [Owner: UInt16] = [:]
    /// Ports in order of use: of all entries, and per identity.
    private var order = UseOrder<UInt16>()
    private var ownOrders: [String: UseOrder<UInt16>] = [:]

    /// - Parameters:
    ///   - namesPerAgent: the most names that one identity may hold. Twice as many ports are kept, because its names
    ///     may change.
    ///   - entries: least recently used first.
    package init(namesPerAgent: Int, _ entries: [Entry] = []) {
        self.maximumPerIdentity = min(2 * namesPerAgent, Self.maximumEntries / 2)
        for entry in entries { self.use(entry) }
    }

    package var count: Int { self.byPort.count }

    /// Least recently used first.
    package var entries: [Entry] { self.order.elements.compactMap { self.byPort[$0] } }

    /// The remembered port of an agent's name; nil without one.
    package func port(of name: Name, for identity: AgentIdentity) -> UInt16? {
        self.ports[Owner(name: name.text, identity: identity.id)]
    }

    /// The agent that a port is reserved for, connected or not; nil if the port has no entry.
    package func keeper(of port: UInt16) -> AgentIdentity? {
        self.byPort[port].map { AgentIdentity(id: $0.identity) }
    }

    /// Whether the port has an entry. Such ports are assigned last.
    package func isKept(_ port: UInt16) -> Bool { self.byPort[port] != nil }

    /// Records a port as used; returns whether the ledger must be saved. A mere change of order need not be.
    package mutating func note(_ port: UInt16, for name: Name, _ identity: AgentIdentity) -> Bool {
        let entry = Entry(name: name.text, identity: identity.id, port: port)
        let isKnown = self.byPort[port] == entry
        self.use(entry)
        return !isKnown
    }

    private mutating func use(_ entry: Entry) {
        // One owner per port: drop the entry of the previous owner.
        if self.byPort[entry.port] != entry {
            self.remove(entry.port)
            if let former = self.ports[entry.owner] { self.remove(former) }
        }
        self.byPort[entry.port] = entry
        self.ports[entry.owner] = entry.port
        self.order.use(entry.port)
        self.ownOrders[entry.identity, default: UseOrder()].use(entry.port)
        if let port = self.ownOrders[entry.identity]?.oldest(above: self.maximumPerIdentity) { self.remove(port) }
        if let port = self.order.oldest(above: Self.maximumEntries) { self.remove(port) }
    }

    private mutating func remove(_ port: UInt16) {
        guard let entry = self.byPort.removeValue(forKey: port) else { return }
        self.ports[entry.owner] = nil
        self.order.remove(port)
        self.ownOrders[entry.identity]?.remove(port)
        if self.ownOrders[entry.identity]?.count == 0 { self.ownOrders[entry.identity] = nil }
    }
}
