package import Wire

/// Remembers which public port a name had, so that the same agent gets the same port again.
///
/// A port has one entry, and so has a name of one identity.
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

    /// Bounds the file; the entry that was used longest ago goes first. Twice the names that a gateway has at once.
    package static let maximumEntries = 8_192

    /// The most that one agent can have, so that it cannot push out all that others have.
    package let maximumPerIdentity: Int
    private var byPort: [UInt16: Entry] = [:]
    private var ports: [Owner: UInt16] = [:]
    /// Ports of all entries, and of those of each identity.
    private var order = UseOrder<UInt16>()
    private var ownOrders: [String: UseOrder<UInt16>] = [:]

    /// - Parameters:
    ///   - namesPerAgent: that one identity can hold at once. It keeps the ports of twice as many, as it may have other
    ///     names tomorrow.
    ///   - entries: in the order of their last use, the newest last.
    package init(namesPerAgent: Int, _ entries: [Entry] = []) {
        self.maximumPerIdentity = min(2 * namesPerAgent, Self.maximumEntries / 2)
        for entry in entries { self.use(entry) }
    }

    package var count: Int { self.byPort.count }

    /// In the order of their last use, the newest last.
    package var entries: [Entry] { self.order.elements.compactMap { self.byPort[$0] } }

    package func port(of name: Name, for identity: AgentIdentity) -> UInt16? {
        self.ports[Owner(name: name.text, identity: identity.id)]
    }

    /// The identity for which a port is remembered.
    package func keeper(of port: UInt16) -> AgentIdentity? {
        self.byPort[port].map { AgentIdentity(id: $0.identity) }
    }

    /// Whether a port is remembered for somebody else and should not be given away while others are free.
    package func isKept(_ port: UInt16) -> Bool { self.byPort[port] != nil }

    /// Notes the port; false when nothing changed that would have to be saved.
    package mutating func note(_ port: UInt16, for name: Name, _ identity: AgentIdentity) -> Bool {
        let entry = Entry(name: name.text, identity: identity.id, port: port)
        let isKnown = self.byPort[port] == entry
        self.use(entry)
        return !isKnown
    }

    private mutating func use(_ entry: Entry) {
        // A port has one owner: the name that had it before has lost it.
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
