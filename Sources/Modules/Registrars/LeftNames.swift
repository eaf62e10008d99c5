internal import Wire

/// Limits on pending withdrawals.
package struct WithdrawalLimits: Equatable, Sendable {
    /// Per agent: twice the names that it can hold, so an agent that reconnects with different names is admitted.
    package var perAgent = 512
    /// For all agents together, to bound memory. A registrar whose reset keeps names is reset at this number.
    package var total = 4_096

    package init() {}
}

/// Names that no agent has any more but that a registrar may still send visitors to, counted by payer: the agent that
/// left them, or its source if agents can create identities at will.
///
/// A name is tracked from the first attempt to publish it. Given back before that, it need not be withdrawn.
struct LeftNames {
    /// Names whose publication has begun and that were not withdrawn since.
    private var traces: Set<Name> = []
    /// Those of `traces` that must be withdrawn, with the payer that gave each one back.
    private var leavers: [Name: String] = [:]
    private var counts: [String: Int] = [:]

    var total: Int { self.leavers.count }

    func count(of payer: String) -> Int { self.counts[payer] ?? 0 }

    /// Whether a name must be withdrawn.
    func contains(_ name: Name) -> Bool { self.leavers[name] != nil }

    mutating func publicationBegan(_ name: Name) { self.traces.insert(name) }

    /// An agent has registered the name again.
    mutating func wanted(_ name: Name) { self.setLeaver(nil, of: name) }

    /// An agent has given the name back.
    ///
    /// - Returns: whether the name must be withdrawn.
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
