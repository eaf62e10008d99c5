package import Timing
package import Wire

/// An agent as the authenticator identified it. The id is the same on all links of the agent.
package struct AgentIdentity: Hashable, Sendable, CustomStringConvertible {
    package let id: String

    package init(id: String) { self.id = id }

    package var description: String { self.id }
}

/// Which identity holds which name, and on which link.
///
/// ## Rules
/// - A name has one holder, and another identity never takes it over.
/// - A newer link of the same identity takes the name over at once: the older link may be dead without having noticed.
/// - When different runs of one identity keep taking a name from each other, the loser gets `conflict` instead of
///   `replaced`: two copies of one installation are fighting.
package struct Registry: Sendable {
    package struct Holder: Equatable, Sendable {
        package let identity: AgentIdentity
        package let link: UInt64
        package let run: UInt64
        package let exposure: UInt16

        package init(identity: AgentIdentity, link: UInt64, run: UInt64, exposure: UInt16) {
            self.identity = identity
            self.link = link
            self.run = run
            self.exposure = exposure
        }
    }

    /// The result of `register`.
    package enum Outcome: Equatable, Sendable {
        case granted
        /// Granted, and the previous holder must receive this code: its exposure is gone.
        case takenOver(from: Holder, ErrorCode)
        case refused(ErrorCode, String)
    }

    /// After this many takeovers by other runs within `conflictSpan` (ms), the next one counts as a conflict.
    private static let conflictTakeovers = 2
    private static let conflictSpan: Milliseconds = 60_000
    private static let minTakeoversToKeep = 64

    private let maximumNamesPerLink: Int
    private var holders: [Name: Holder] = [:]
    /// The names of each link by exposure number, and the number of names per identity: indexes that keep a
    /// registration cheap with thousands of names.
    private var namesByLink: [UInt64: [UInt16: Name]] = [:]
    private var nameCounts: [AgentIdentity: Int] = [:]
    private var takeovers: [Name: [Milliseconds]] = [:]
    /// Expired `takeovers` are purged at this size. It is then set to twice what is left, so that purging stays cheap.
    private var takeoversToKeep = Registry.minTakeoversToKeep

    package init(maximumNamesPerLink: Int) {
        self.maximumNamesPerLink = maximumNamesPerLink
    }

    package var nameCount: Int { self.holders.count }

    /// The number of names that an identity holds over all its links, not counting `name`.
    package func nameCount(of identity: AgentIdentity, except name: Name) -> Int {
        (self.nameCounts[identity] ?? 0) - (self.holders[name]?.identity == identity ? 1 : 0)
    }

    package func holder(of name: Name) -> Holder? { self.holders[name] }

    /// Registers a name for an agent that is already authorized for it.
    ///
    /// - Parameters:
    ///   - atMost: the most names on the agent's link; nil for the gateway's `maximumNamesPerLink`.
    ///   - holderIsGone: whether the present holder's link has no connection. Taking its names is not a conflict.
    package mutating func register(
        _ name: Name, _ newcomer: Holder, atMost: Int? = nil, holderIsGone: Bool = false, now: Milliseconds
    ) -> Outcome {
        let atMost = atMost ?? self.maximumNamesPerLink
        if self.namesByLink[newcomer.link]?[newcomer.exposure] != nil {
            return .refused(.nameInvalid, "the exposure number \(newcomer.exposure) is in use on this link")
        }
        let count = self.namesByLink[newcomer.link]?.count ?? 0
        guard let holder = self.holders[name] else {
            guard count < atMost else { return .refused(.tooManyNames, "a link has at most \(atMost) names") }
            self.set(newcomer, of: name)
            return .granted
        }
        guard holder.identity == newcomer.identity else {
            return .refused(.nameTaken, "the name '\(name)' is held by another agent")
        }
        guard holder.link != newcomer.link else {
            return .refused(.nameTaken, "the name '\(name)' is registered on this link already")
        }
        guard count < atMost else { return .refused(.tooManyNames, "a link has at most \(atMost) names") }
        self.set(newcomer, of: name)
        guard holder.run != newcomer.run, !holderIsGone else { return .takenOver(from: holder, .replaced) }
        return .takenOver(from: holder, self.noteTakeover(name, now: now) ? .conflict : .replaced)
    }

    /// Records a takeover by another run; returns whether it counts as a conflict.
    private mutating func noteTakeover(_ name: Name, now: Milliseconds) -> Bool {
        if self.takeovers.count >= self.takeoversToKeep {
            self.takeovers = self.takeovers.filter { now - ($0.value.last ?? 0) < Self.conflictSpan }
            self.takeoversToKeep = max(2 * self.takeovers.count, Self.minTakeoversToKeep)
        }
        let recent = self.takeovers[name, default: []].filter { now - $0 < Self.conflictSpan }
        self.takeovers[name] = recent.suffix(Self.conflictTakeovers) + [now]
        return recent.count >= Self.conflictTakeovers
    }

    /// Frees a name, unless another link or exposure holds it by now.
    package mutating func unregister(_ name: Name, link: UInt64, exposure: UInt16) {
        guard let holder = self.holders[name], holder.link == link, holder.exposure == exposure else { return }
        self.set(nil, of: name)
    }

    private mutating func set(_ holder: Holder?, of name: Name) {
        if let former = self.holders[name] {
            self.namesByLink[former.link]?[former.exposure] = nil
            if self.namesByLink[former.link]?.isEmpty ?? false { self.namesByLink[former.link] = nil }
            let count = (self.nameCounts[former.identity] ?? 0) - 1
            self.nameCounts[former.identity] = count > 0 ? count : nil
        }
        self.holders[name] = holder
        guard let holder else { return }
        self.namesByLink[holder.link, default: [:]][holder.exposure] = name
        self.nameCounts[holder.identity, default: 0] += 1
    }
}
