/// What a person at a terminal sees of the agent: a block with the addresses, then changes and the first visitor of each
/// name. Warnings come from the log, which has no other lines then.
struct TerminalView {
    private enum Row: Equatable {
        case pending
        case online(address: String)
        case offline(reason: String)
    }

    private enum Link {
        case connecting
        /// - Parameter isNew: whether the block is still to come.
        case up(gateway: String, isNew: Bool)
        case lost
    }

    private struct Name {
        let name: String
        let backend: String
        var row = Row.pending
        var hasVisitor = false
    }

    private var names: [Name]
    private var link = Link.connecting
    private var hasShownBlock = false

    /// - Parameter names: the names and their backends, in the order of the block.
    init(names: [(name: String, backend: String)]) {
        self.names = names.map { Name(name: $0.name, backend: $0.backend) }
    }

    /// Replaces the names. Unchanged names keep their state.
    mutating func change(to names: [(name: String, backend: String)]) {
        self.names = names.map { name, backend in
            self.names.first { $0.name == name && $0.backend == backend } ?? Name(name: name, backend: backend)
        }
    }

    /// Whether the next visitor of a name is its first.
    func awaitsVisitor(of name: String) -> Bool { self.names.contains { $0.name == name && !$0.hasVisitor } }

    /// The lines to print for an event.
    mutating func lines(for event: AgentEvent) -> [String] {
        switch event {
        case .connected(let gateway, _):
            self.link = .up(gateway: gateway, isNew: !self.hasShownBlock)
            return self.hasShownBlock ? ["\(Paint.good("●")) connected to \(gateway) again"] : []
        case .registered(let name, let address, _, _, let problem):
            return self.answered(name, .online(address: address ?? problem ?? "see the gateway's log for the port"))
        case .missing(let name, _, let message): return self.answered(name, .offline(reason: message))
        case .stream(let name, let visitor): return self.visited(name, visitor)
        case .lost:
            self.link = .lost
            return []
        case .retrying, .refused, .omitted: return []
        }
    }

    private mutating func answered(_ name: String, _ row: Row) -> [String] {
        guard let index = self.names.firstIndex(where: { $0.name == name }) else { return [] }
        let isChange = self.names[index].row != row
        self.names[index].row = row
        if case .up(let gateway, isNew: true) = self.link {
            guard self.names.allSatisfy({ $0.row != .pending }) else { return [] }
            self.link = .up(gateway: gateway, isNew: false)
            self.hasShownBlock = true
            return self.block(gateway)
        }
        // The log warns about a name that is not reachable.
        guard isChange, case .online = row else { return [] }
        return [self.line(self.names[index], width: name.count)]
    }

    private mutating func visited(_ name: String, _ visitor: String) -> [String] {
        guard let index = self.names.firstIndex(where: { $0.name == name }), !self.names[index].hasVisitor else {
            return []
        }
        self.names[index].hasVisitor = true
        return ["\(Paint.faint("first visitor of")) \(name)\(Paint.faint(":")) \(visitor)"]
    }

    private func block(_ gateway: String) -> [String] {
        let width = self.names.map(\.name.count).max() ?? 0
        return ["\(Paint.good("●")) connected to \(gateway)", ""]
            + self.names.map { self.line($0, width: width) }
            + ["", Paint.faint("Press Ctrl-C to stop; use -d to log every visitor.")]
    }

    private func line(_ name: Name, width: Int) -> String {
        let label = name.name + String(repeating: " ", count: max(0, width - name.name.count))
        switch name.row {
        case .pending: return "  \(label)"
        case .online(let address):
            return "  \(label)  \(Paint.strong(address))  \(Paint.faint("→"))  \(name.backend)  \(Paint.good("online"))"
        case .offline(let reason): return "  \(label)  \(Paint.bad("not reachable:")) \(reason)"
        }
    }
}

/// Colours and weights of a terminal (ECMA-48, 8.3.117).
private enum Paint {
    static func good(_ text: String) -> String { self.painted(text, "32") }

    static func bad(_ text: String) -> String { self.painted(text, "31") }

    static func strong(_ text: String) -> String { self.painted(text, "1") }

    static func faint(_ text: String) -> String { self.painted(text, "2") }

    private static func painted(_ text: String, _ code: String) -> String { "\u{1B}[\(code)m\(text)\u{1B}[0m" }
}
