package import Timing
package import Wire

/// Who an agent is, as the authenticator said: an id that stays the same from link to link.
package struct AgentIdentity: Hashable, Sendable, CustomStringConvertible {
    package let id: String

    package init(id: String) { self.id = id }

    package var description: String { self.id }
}

/// Which names are held, by whom, over which link.
///
/// ## Rules
/// - A name has one holder. Another identity never takes it over.
/// - The same identity takes its name over at once: its old link may be dead and not know it yet.
/// - When programs that are not the same one (by their run) take a name from each other again and again, the loser is
///   told so (`conflict`) instead of `replaced`, as two copies of one installation fight.
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

    /// The answer to a request for a name.
    package enum Outcome: Equatable, Sendable {
        case granted
        /// Granted; tell the former holder that its exposure is gone, with this code.
        case takenOver(from: Holder, ErrorCode)
        case refused(ErrorCode, String)
    }

    /// Takeovers by other programs within `conflictSpan` after which the loser is told of a conflict.
    private static let conflictTakeovers = 2
    private static let conflictSpan: Milliseconds = 60_000
    private static let minTakeoversToKeep = 64

    private let maximumNamesPerLink: Int
    private var holders: [Name: Holder] = [:]
    /// Names of each link by their exposure numbers, and how many each identity has: thousands of names must not make
    /// one registration dear.
    private var namesByLink: [UInt64: [UInt16: Name]] = [:]
    private var nameCounts: [AgentIdentity: Int] = [:]
    private var takeovers: [Name: [Milliseconds]] = [:]
    /// When there are as many, those that are over are forgotten.
    private var takeoversToKeep = Registry.minTakeoversToKeep

    package init(maximumNamesPerLink: Int) {
        self.maximumNamesPerLink = maximumNamesPerLink
    }

    package var nameCount: Int { self.holders.count }

    /// Names of one identity over all its links, one left out.
    package func nameCount(of identity: AgentIdentity, except name: Name) -> Int {
        (self.nameCounts[identity] ?? 0) - (self.holders[name]?.identity == identity ? 1 : 0)
    }

    package func holder(of name: Name) -> Holder? { self.holders[name] }

    /// An agent asks for a name that it has the right to.
    ///
    /// - Parameter atMost: names of its link; nil: as many as any link may have.
    package mutating func register(_ name: Name, _ newcomer: Holder, atMost: Int? = nil, now: Milliseconds) -> Outcome {
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
        guard holder.run != newcomer.run else { return .takenOver(from: holder, .replaced) }
        return .takenOver(from: holder, self.noteTakeover(name, now: now) ? .conflict : .replaced)
    }

    /// Whether this takeover is one too many.
    private mutating func noteTakeover(_ name: Name, now: Milliseconds) -> Bool {
        if self.takeovers.count >= self.takeoversToKeep {
            self.takeovers = self.takeovers.filter { now - ($0.value.last ?? 0) < Self.conflictSpan }
            self.takeoversToKeep = max(2 * self.takeovers.count, Self.minTakeoversToKeep)
        }
        let recent = self.takeovers[name, default: []].filter { now - $0 < Self.conflictSpan }
        self.takeovers[name] = recent.suffix(Self.conflictTakeovers) + [now]
        return recent.count >= Self.conflictTakeovers
    }

    /// Frees a name, if that link still holds it by that exposure.
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
