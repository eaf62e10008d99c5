internal import Wire

/// How many names may wait to be withdrawn by a registrar whose reset does not keep the names of other agents.
package struct WithdrawalLimits: Equatable, Sendable {
    /// Of one agent: twice the names that it can hold at once, so that one that comes back with other names is let in.
    package var perAgent = 512
    /// Of all agents: it bounds memory. A registrar whose reset keeps names is reset at this number.
    package var total = 4_096

    package init() {}
}

/// Names that a registrar may still lead visitors to although no agent has them, counted by the payer that left them: the
/// agent, or its source where identities are free.
///
/// A name enters with the first attempt to publish it. One that was given back before has left nothing behind.
struct LeftNames {
    /// Names of which a publication was begun, and no withdrawal has been done since.
    private var traces: Set<Name> = []
    /// Those of `traces` that must be withdrawn, with the payer that gave each back.
    private var leavers: [Name: String] = [:]
    private var counts: [String: Int] = [:]

    var total: Int { self.leavers.count }

    func count(of payer: String) -> Int { self.counts[payer] ?? 0 }

    /// Whether a name must be withdrawn.
    func contains(_ name: Name) -> Bool { self.leavers[name] != nil }

    mutating func publicationBegan(_ name: Name) { self.traces.insert(name) }

    /// An agent has the name again.
    mutating func wanted(_ name: Name) { self.setLeaver(nil, of: name) }

    /// An agent has given the name back.
    ///
    /// - Returns: whether there is anything to withdraw.
    mutating func givenBack(_ name: Name, by payer: String) -> Bool {
        guard self.traces.contains(name) else { return false }
        self.setLeaver(payer, of: name)
        return true
    }

    /// The registrar has withdrawn the name, or its next reset will.
    mutating func gone(_ name: Name) {
        self.traces.remove(name)
        self.setLeaver(nil, of: name)
    }

    private mutating func setLeaver(_ payer: String?, of name: Name) {
        if let former = self.leavers[name] {
            let count = self.count(of: former) - 1
            self.counts[former] = count > 0 ? count : nil
        }
        self.leavers[name] = payer
        if let payer { self.counts[payer, default: 0] += 1 }
    }
}
