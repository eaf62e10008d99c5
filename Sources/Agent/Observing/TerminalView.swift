/// What a person at a terminal sees of the agent: the addresses, then changes and the first visitor of each name.
/// Warnings come from the log, which has no other lines then.
final class TerminalView {
    private enum Row: Equatable {
        case pending
        case online(address: String)
        /// Registered, but without an address for visitors. The log has a warning with the reason.
        case limited
        /// Refused or lost. The log has a warning with the reason.
        case offline
    }

    private struct Name {
        let name: String
        var backend: String
        var row = Row.pending
        var hasVisitor = false
    }

    /// What is still missing of the first block.
    private enum Block {
        case heading
        case rows
        case nothing
    }

    private var names: [Name]
    private var missing = Block.heading

    /// - Parameter names: the names and their backends, in the order of the block.
    init(names: [(name: String, backend: String)]) {
        self.names = names.map { Name(name: $0.name, backend: $0.backend) }
    }

    /// Replaces the names, and returns the lines about changes. Names keep their state.
    func change(to names: [(name: String, backend: String)]) -> [String] {
        var lines: [String] = []
        let former = self.names
        self.names = names.map { name, backend in
            guard var known = former.first(where: { $0.name == name }) else {
                return Name(name: name, backend: backend)
            }
            guard known.backend != backend else { return known }
            known.backend = backend
            if known.row != .pending { lines.append(self.line(known, width: name.count)) }
            return known
        }
        for gone in former where !self.names.contains(where: { $0.name == gone.name }) {
            lines.append("  \(gone.name)  \(Paint.faint("removed"))")
        }
        return lines + self.end()
    }

    /// Whether the next visitor of a name is its first.
    func awaitsVisitor(of name: String) -> Bool { self.names.contains { $0.name == name && !$0.hasVisitor } }

    /// The lines to print for an event.
    func lines(for event: AgentEvent) -> [String] {
        switch event {
        case .connected(let gateway, _):
            guard case .heading = self.missing else { return ["\(Paint.good("●")) connected to \(gateway) again"] }
            self.missing = .rows
            return ["\(Paint.good("●")) connected to \(gateway)", ""]
        case .registered(let name, _, _, _, .some): return self.answered(name, .limited)
        case .registered(let name, let address, _, _, nil):
            return self.answered(name, .online(address: address ?? "see the gateway's log for the port"))
        case .missing(let name, _, _): return self.answered(name, .offline)
        case .stream(let name, let visitor): return self.visited(name, visitor)
        case .interrupted, .resumed, .lost, .retrying, .refused, .omitted: return []
        }
    }

    private func answered(_ name: String, _ row: Row) -> [String] {
        guard let index = self.names.firstIndex(where: { $0.name == name }), self.names[index].row != row else {
            return []
        }
        self.names[index].row = row
        let width: Int
        switch self.missing {
        case .heading, .rows: width = self.names.map(\.name.count).max() ?? 0
        case .nothing:
            // The log warns about the rest.
            guard case .online = row else { return [] }
            width = name.count
        }
        return [self.line(self.names[index], width: width)] + self.end()
    }

    /// The end of the block, when every name has its first answer.
    private func end() -> [String] {
        guard case .rows = self.missing, self.names.allSatisfy({ $0.row != .pending }) else { return [] }
        self.missing = .nothing
        return ["", Paint.faint("Press Ctrl-C to stop; use -d to log every visitor.")]
    }

    private func visited(_ name: String, _ visitor: String) -> [String] {
        guard let index = self.names.firstIndex(where: { $0.name == name }), !self.names[index].hasVisitor else {
            return []
        }
        self.names[index].hasVisitor = true
        return ["\(Paint.faint("first visitor of")) \(name)\(Paint.faint(":")) \(visitor)"]
    }

    private func line(_ name: Name, width: Int) -> String {
        let label = name.name + String(repeating: " ", count: max(0, width - name.name.count))
        let target = "\(Paint.faint("→"))  \(name.backend)"
        switch name.row {
        case .pending: return "  \(label)  \(target)"
        case .online(let address): return "  \(label)  \(Paint.strong(address))  \(target)  \(Paint.good("online"))"
        case .limited: return "  \(label)  \(target)  \(Paint.caution("not public, see the warning"))"
        case .offline: return "  \(label)  \(target)  \(Paint.bad("not reachable, see the warning"))"
        }
    }
}

/// Colours and weights of a terminal (ECMA-48, 8.3.117).
private enum Paint {
    static func good(_ text: String) -> String { self.painted(text, "32") }

    static func caution(_ text: String) -> String { self.painted(text, "33") }

    static func bad(_ text: String) -> String { self.painted(text, "31") }

    static func strong(_ text: String) -> String { self.painted(text, "1") }

    static func faint(_ text: String) -> String { self.painted(text, "2") }

    private static func painted(_ text: String, _ code: String) -> String { "\u{1B}[\(code)m\(text)\u{1B}[0m" }
}
