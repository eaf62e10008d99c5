internal import Wire

/// What a registrar could not do and has not done since.
struct RegistrarFailures {
    /// What can fail, and is mended by the same and nothing else.
    enum Action: Hashable {
        case reset
        case publish(Name)
        case withdraw(Name)
    }

    private var failures: [Action: (text: String, order: Int)] = [:]
    private var count = 0

    var isEmpty: Bool { self.failures.isEmpty }

    /// The latest.
    var latest: String? { self.failures.values.max { $0.order < $1.order }?.text }

    /// - Parameter isWanted: whether a name shall be published now.
    /// - Returns: whether nothing fails any more that did before.
    mutating func succeeded(_ action: Action, isWanted: (Name) -> Bool) -> Bool {
        let wasFailing = !self.isEmpty
        self.failures[action] = nil
        switch action {
        case .publish(let name):
            self.failures[.withdraw(name)] = nil
            self.forgetUnwanted(isWanted)
        case .reset: self.forgetUnwanted(isWanted)
        // That a name can be taken back does not tell whether one can be published.
        case .withdraw: break
        }
        return wasFailing && self.isEmpty
    }

    /// - Returns: false when the same has failed in the same way before.
    mutating func failed(_ action: Action, _ text: String, isWanted: (Name) -> Bool) -> Bool {
        self.forgetUnwanted(isWanted, but: action)
        let isNew = text != self.failures[action]?.text
        self.count += 1
        self.failures[action] = (text, self.count)
        return isNew
    }

    /// Names are not withdrawn one by one any more, but by the next reset, which has failed until it is done.
    mutating func abandoned(_ names: [Name]) {
        let latest = self.latest
        for name in names { self.failures[.withdraw(name)] = nil }
        self.count += 1
        if let latest { self.failures[.reset] = (latest, self.count) }
    }

    /// Forgets failures to publish what nobody wants published any more; the latest is kept until a newer attempt.
    private mutating func forgetUnwanted(_ isWanted: (Name) -> Bool, but latest: Action? = nil) {
        for case .publish(let name) in self.failures.keys where !isWanted(name) {
            if .publish(name) != latest { self.failures[.publish(name)] = nil }
        }
    }
}
