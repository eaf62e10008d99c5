internal import Synchronization

/// The keys of one table of a file: an object with a ``Key`` in each of its properties, in the order of the document.
package protocol KeyTable: Sendable {
    /// The name in the document: `<!-- keys: NAME -->`.
    static var name: String { get }
    /// The heading of the options column in the document; nil without such a column.
    static var optionHeading: String? { get }
    static var keys: Self { get }
}

extension KeyTable {
    package static var optionHeading: String? { nil }

    package static var descriptions: [KeyDescription] {
        Mirror(reflecting: self.keys).children.compactMap { ($0.value as? any DescribedKey)?.description }
    }

    /// The names of the keys, cached: an agents file has thousands of tables.
    package static var names: Set<String> {
        keyNames.withLock { names in
            if let known = names[ObjectIdentifier(self)] { return known }
            let found = Set(self.descriptions.map(\.name))
            names[ObjectIdentifier(self)] = found
            return found
        }
    }

    /// The table in the document.
    package static var markdown: String {
        let heading = ["key", "type", "default"] + [self.optionHeading].compactMap(\.self) + ["meaning"]
        let lines =
            ["<!-- keys: \(self.name) -->", "| \(heading.joined(separator: " | ")) |"]
            + [String(repeating: "|---", count: heading.count) + "|"]
            + self.descriptions.map { $0.row(hasOptions: self.optionHeading != nil) }
        return lines.map { "\($0)\n" }.joined()
    }
}

/// The names of the keys of each table type.
private let keyNames = Mutex<[ObjectIdentifier: Set<String>]>([:])

/// The tables of `docs/configuration.md`, in its order.
package enum KeyTables {
    package static let ofGateway: [any KeyTable.Type] = [
        GatewayKeys.self, LimitKeys.self, ExecKeys.self, WebhookKeys.self, RegistrarKeys.self, ProxyKeys.self,
        TraefikKeys.self, CaddyKeys.self, MapKeys.self, AgentsKeys.self, AgentEntryKeys.self,
    ]
    package static let ofAgent: [any KeyTable.Type] = [AgentKeys.self, ExposeKeys.self]

    /// The tables, separated by empty lines.
    package static func markdown(_ tables: [any KeyTable.Type]) -> String {
        tables.map { $0.markdown }.joined(separator: "\n")
    }
}
