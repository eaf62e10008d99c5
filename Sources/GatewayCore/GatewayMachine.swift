package import Timing
package import Wire

/// The number of an agent's link, unique within a run of the gateway.
package typealias LinkID = UInt64

/// Identifies one registration of a name. A name that is released and registered again gets a new id.
package struct ExposureID: Hashable, Sendable, Comparable {
    package let number: UInt64

    package init(number: UInt64) { self.number = number }

    package static func < (left: Self, right: Self) -> Bool { left.number < right.number }
}

/// An error code and the text sent to the agent.
package struct Refusal: Error, Equatable, Sendable {
    package let code: ErrorCode
    package let text: String

    package init(code: ErrorCode, text: String) {
        self.code = code
        self.text = text
    }
}

/// The gateway's rules about links and names: which links an agent may have, who holds which name, and in which order
/// names are opened, probed, published and withdrawn.
///
/// It is pure: methods take events and the time, and ``popEffect()`` returns the resulting effects.
///
/// ```
///  REGISTER     authorized     opened        backend answers    published
///  ────────► asked ──────► opening ────► probing ────────► publishing ────► published
///              │ refused      │ no port     (if wanted)         │ failed        │ another link of the agent registers
///              ▼              ▼                                 ▼               ▼ the name: it moves there as it is
///            refused        refused                          withdrawn
/// ```
/// ## Invariants
/// - A name has one holder, and an exposure belongs to one link.
/// - Nothing is published for a link that is gone, and everything opened is withdrawn exactly once.
package struct GatewayMachine: Sendable {
    package struct Limits: Sendable {
        /// Links, over all agents.
        package var agents = 1_024
        /// Names, over all agents.
        package var names = 4_096
        package var namesPerAgent = 100
        package var namesPerLink = 100
        package var ports = PortPolicy.any
        /// Whether a name is published only once its backend accepts connections.
        package var probesBackends = false

        package init() {}
    }

    /// A link whose agent has logged in.
    package struct Login: Equatable, Sendable {
        package let identity: AgentIdentity
        /// The key for rate limits on registrations and withdrawals: the identity, or the source of an agent that can
        /// create identities at will.
        package let payer: String
        /// Identifies one start of the agent program; the same on all its links.
        package let run: UInt64
        /// The most names that the agent may have; nil for the gateway's limit.
        package var maxNames: Int?
        /// Whether the protocol version of the link can report that the backend accepted a connection.
        package let canProbe: Bool

        package init(identity: AgentIdentity, payer: String, run: UInt64, maxNames: Int? = nil, canProbe: Bool = true) {
            self.identity = identity
            self.payer = payer
            self.run = run
            self.maxNames = maxNames
            self.canProbe = canProbe
        }
    }

    /// A loss or refusal, to be logged about a link.
    package struct Warning: Equatable, Sendable {
        package let text: String
        package let name: Name?
        package let code: ErrorCode
        /// Whether it follows a change of rights. Such lines are never rate-limited.
        package let isChange: Bool
    }

    /// A limit that was reached, for the metrics.
    package enum Hit: Equatable, Sendable {
        case registrations
        /// The number of payers whose buckets were dropped to make room.
        case registrationTable(Int)
        case withdrawals
    }

    /// An action for the driver. "Result" names the event by which the driver reports the outcome.
    package enum Effect: Equatable, Sendable {
        /// Ask the authenticator whether the link's agent may have a name. Result: `authorized` or `refused`.
        case ask(LinkID, number: UInt16, Name, port: UInt16)
        /// Cancel an `ask`: its result is no longer needed.
        case cancelQuestion(LinkID, number: UInt16)
        /// Open the exposure's listeners, paused. Result: `opened` or `notOpened`.
        case open(ExposureID, PortRequest)
        /// Route the exposure's visitors to this link, where it now has this number.
        case attach(ExposureID, LinkID, number: UInt16)
        /// Probe the backend over the link until it accepts a connection. Result: `probed`.
        case probe(ExposureID, LinkID)
        /// Have all registrars publish the exposure. Result: `published`.
        case publish(ExposureID)
        /// Tell the agent that its name is public, and let visitors in.
        case grant(ExposureID, LinkID, number: UInt16)
        /// Close the listeners, and have all registrars withdraw the name.
        case withdraw(ExposureID)
        /// Tell the agent that its request for a name was refused.
        case refuse(LinkID, number: UInt16, Refusal)
        /// Tell the agent that it has lost a name.
        case takeBack(LinkID, number: UInt16, Refusal)
        /// The exposure has a name that another program of the agent had. The grant reports it.
        case takenOver(ExposureID, from: LinkID)
        /// Log that another link of the agent took over the name.
        case lost(LinkID, Name, ErrorCode)
        case warn(LinkID, Warning)
        /// Reset the streams of a name.
        case cutStreams(LinkID, number: UInt16)
        /// Send the agent the reason, then end the link.
        case end(LinkID, Refusal, retryAfterSeconds: UInt16)
        /// Close the link without GOAWAY: its program has a newer one.
        case close(LinkID)
        /// The link has no connection, and its program has logged in again: reset its streams, and close it when its
        /// names have moved.
        case retire(LinkID)
        case hit(Hit)
        /// Save the port ledger.
        case savePorts
    }

    struct Question: Sendable {
        let name: Name
        let port: UInt16
    }

    enum LinkState: Sendable {
        case open
        /// Open streams finish, and nothing new starts.
        case draining
        case ending
    }

    struct Link: Sendable {
        var login: Login
        var state = LinkState.open
        /// Since when it waits for its next connection.
        var detachedSince: Milliseconds?
        var questions: [UInt16: Question] = [:]
        var exposures: [UInt16: ExposureID] = [:]

        /// Whether it counts towards the limits on links.
        var isPresent: Bool { self.state != .ending }
    }

    enum Phase: Sendable { case opening, probing, publishing, published }

    struct Exposure: Sendable {
        let name: Name
        let identity: AgentIdentity
        var link: LinkID
        var number: UInt16
        var port: UInt16 = 0
        var phase = Phase.opening
    }

    /// Links per run: the current one, and a dead one that has not timed out yet.
    package static let maxLinksPerRun = 2

    package let limits: Limits
    package internal(set) var ledger: PortLedger
    package internal(set) var registry: Registry
    var registrations: RegistrationGate
    var links: [LinkID: Link] = [:]
    var linksByAgent: [AgentIdentity: Set<LinkID>] = [:]
    var exposures: [ExposureID: Exposure] = [:]
    var lastExposure: UInt64 = 0
    package private(set) var isDraining = false
    /// Queue of effects; those before `firstEffect` were returned already.
    private var effects: [Effect] = []
    private var firstEffect = 0

    package init(_ limits: Limits, ledger: PortLedger) {
        self.limits = limits
        self.ledger = ledger
        self.registry = Registry(maximumNamesPerLink: limits.namesPerLink)
        self.registrations = RegistrationGate(limits: RegistrationLimits(namesPerAgent: limits.namesPerAgent))
    }

    // MARK: - Effects

    /// The next effect to perform; nil if there are no more until the next event. After each event, call this until it
    /// returns nil.
    package mutating func popEffect() -> Effect? {
        guard self.firstEffect < self.effects.count else {
            self.effects.removeAll(keepingCapacity: true)
            self.firstEffect = 0
            return nil
        }
        defer { self.firstEffect += 1 }
        return self.effects[self.firstEffect]
    }

    mutating func emit(_ effect: Effect) { self.effects.append(effect) }

    package var nameCount: Int { self.registry.nameCount }

    /// Whether the agent has a link that is not ending.
    func hasLink(of identity: AgentIdentity) -> Bool {
        self.linksByAgent[identity]?.contains { self.links[$0]?.isPresent ?? false } ?? false
    }

    /// The link that holds an exposure; nil if the exposure is gone.
    package func link(of exposure: ExposureID) -> LinkID? { self.exposures[exposure]?.link }

    /// Drops expired rate limits. Call about once a second.
    package mutating func tick(now: Milliseconds) { self.registrations.forgetFull(now: now) }

    // MARK: - Links

    /// The authenticator accepted a login. Closes the oldest links of the same run above `maxLinksPerRun`. A link of
    /// the same run that waits for a connection is not resumed any more. At a limit, the agent's link that has waited
    /// longest ends.
    ///
    /// - Parameter maxLinks: the most links that the agent may have. Those of the same run do not count.
    /// - Returns: why the link is refused; nil if it was added.
    package mutating func loggedIn(_ id: LinkID, _ login: Login, maxLinks: Int) -> Refusal? {
        guard !self.isDraining else { return Refusal(code: .drain, text: "the gateway is stopping") }
        let present = self.linksByAgent[login.identity, default: []].filter { self.links[$0]?.isPresent ?? false }
        let own = present.filter { self.links[$0]?.login.run == login.run }.sorted()
        let retired = own.filter { self.links[$0]?.detachedSince != nil }
        let former = own.filter { !retired.contains($0) }.dropLast(Self.maxLinksPerRun - 1)
        let others = present.filter { !own.contains($0) }
        var waiting = others.filter { self.links[$0]?.detachedSince != nil }.sorted {
            (self.links[$0]?.detachedSince ?? 0, $0) < (self.links[$1]?.detachedSince ?? 0, $1)
        }
        let excess = max(
            others.count - maxLinks + 1,
            self.links.values.count(where: \.isPresent) - former.count - retired.count - self.limits.agents + 1)
        guard others.count - waiting.count < maxLinks else {
            return Refusal(code: .tooManyLinks, text: "the agent has \(present.count) links already")
        }
        guard excess <= waiting.count else {
            return Refusal(code: .tooManyLinks, text: "the gateway has reached its limit of agents")
        }
        waiting = Array(waiting.prefix(max(0, excess)))
        for older in former + waiting {
            self.links[older]?.state = .ending
            self.emit(.close(older))
        }
        for older in retired {
            self.links[older]?.state = .ending
            self.emit(.retire(older))
        }
        self.links[id] = Link(login: login)
        self.linksByAgent[login.identity, default: []].insert(id)
        return nil
    }

    /// One side sent GOAWAY: the link gets no more names, its pending requests are cancelled, and its open streams
    /// finish. It keeps its names until they are dropped or taken over.
    package mutating func linkIsDraining(_ id: LinkID) {
        if self.links[id]?.state == .open { self.links[id]?.state = .draining }
        self.cancelQuestions(of: id)
    }

    /// The link's connection is gone, and it waits for the next one.
    package mutating func linkDetached(_ id: LinkID, now: Milliseconds) { self.links[id]?.detachedSince = now }

    /// The link has a connection again.
    package mutating func linkResumed(_ id: LinkID) { self.links[id]?.detachedSince = nil }

    /// The link is about to close. It keeps its names until `linkEnded`, so that a newer link can take them over.
    package mutating func linkIsEnding(_ id: LinkID) { self.links[id]?.state = .ending }

    /// The link is closed. Withdraws the names that no other link has taken over.
    package mutating func linkEnded(_ id: LinkID) {
        self.dropNames(of: id)
        self.cancelQuestions(of: id)
        guard let link = self.links.removeValue(forKey: id) else { return }
        self.linksByAgent[link.login.identity]?.remove(id)
        if self.linksByAgent[link.login.identity]?.isEmpty ?? false { self.linksByAgent[link.login.identity] = nil }
    }

    private mutating func cancelQuestions(of id: LinkID) {
        for number in self.links[id]?.questions.keys.sorted() ?? [] { self.emit(.cancelQuestion(id, number: number)) }
        self.links[id]?.questions = [:]
    }

    /// The gateway is stopping: refuses new links and names from now on.
    package mutating func drain() { self.isDraining = true }

    /// Withdraws all names of a link.
    package mutating func dropNames(of link: LinkID) {
        for (_, id) in self.links[link]?.exposures.sorted(by: { $0.key < $1.key }) ?? [] { self.withdraw(id) }
    }

    // MARK: - Refusals and withdrawal

    mutating func refuse(
        _ link: LinkID, _ number: UInt16, _ name: Name?, _ code: ErrorCode, _ text: String, log: String
    ) {
        self.emit(.warn(link, Warning(text: log, name: name, code: code, isChange: false)))
        self.emit(.refuse(link, number: number, Refusal(code: code, text: text)))
    }

    mutating func end(_ link: LinkID, _ refusal: Refusal, retryAfter seconds: UInt16 = 0) {
        self.links[link]?.state = .ending
        self.emit(.end(link, refusal, retryAfterSeconds: seconds))
    }

    /// Frees the name and closes it to visitors.
    mutating func withdraw(_ id: ExposureID) {
        guard let exposure = self.exposures.removeValue(forKey: id) else { return }
        // Does nothing if another link has taken the name over.
        self.registry.unregister(exposure.name, link: exposure.link, exposure: exposure.number)
        self.links[exposure.link]?.exposures[exposure.number] = nil
        // It has no listeners yet. If they open later, `opened` withdraws them.
        if case .opening = exposure.phase { return }
        self.emit(.withdraw(id))
    }
}
