internal import Wire

/// A registrar's actions that failed and have not succeeded since.
struct RegistrarFailures {
    /// An action that can fail. A later success of the same action clears its failure.
    enum Action: Hashable {
        case reset
        case publish(Name)
        case withdraw(Name)
    }

    private var failures: [Action: (text: String, order: Int)] = [:]
    private var count = 0

    var isEmpty: Bool { self.failures.isEmpty }

    /// The text of the latest failure.
    var latest: String? { self.failures.values.max { $0.order < $1.order }?.text }

    /// - Parameter isWanted: whether a name is meant to be published now.
    /// - Returns: whether this cleared the last failure.
    mutating func succeeded(_ action: Action, isWanted: (Name) -> Bool) -> Bool {
        let wasFailing = !self.isEmpty
        self.failures[action] = nil
        switch action {
        case .publish(let name):
            self.failures[.withdraw(name)] = nil
            self.forgetUnwanted(isWanted)
        case .reset: self.forgetUnwanted(isWanted)
        // A successful withdrawal does not show whether publishing works.
        case .withdraw: break
        }
        return wasFailing && self.isEmpty
    }

    /// - Returns: false if the same action has already failed with the same text.
    mutating func failed(_ action: Action, _ text: String, isWanted: (Name) -> Bool) -> Bool {
        self.forgetUnwanted(isWanted, but: action)
        let isNew = text != self.failures[action]?.text
        self.count += 1
        self.failures[action] = (text, self.count)
        return isNew
    }

    /// The next reset removes these names instead of withdrawals. The latest failure stays until that reset succeeds.
    mutating func abandoned(_ names: [Name]) {
        let latest = self.latest
        for name in names { self.failures[.withdraw(name)] = nil }
        self.count += 1
        if let latest { self.failures[.reset] = (latest, self.count) }
    }

    /// Forgets failed publications of names that no agent wants any more, except that of `latest`.
    private mutating func forgetUnwanted(_ isWanted: (Name) -> Bool, but latest: Action? = nil) {
        for case .publish(let name) in self.failures.keys where !isWanted(name) {
            if .publish(name) != latest { self.failures[.publish(name)] = nil }
        }
    }
}
