package import Timing
package import Wire

/// A link of an agent, by its number.
package typealias LinkID = UInt64

/// A name while one agent has it. A name that is given back and registered again is another exposure.
package struct ExposureID: Hashable, Sendable, Comparable {
    package let number: UInt64

    package init(number: UInt64) { self.number = number }

    package static func < (left: Self, right: Self) -> Bool { left.number < right.number }
}

/// A refusal with its code and the text for the agent.
package struct Refusal: Error, Equatable, Sendable {
    package let code: ErrorCode
    package let text: String

    package init(code: ErrorCode, text: String) {
        self.code = code
        self.text = text
    }
}

/// Which agents are here, and which names they have: the gateway's rules about links and names. It is pure: methods take
/// events and the time, ``popEffect()`` returns what follows.
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
/// - Nothing is published for a link that is not here; what was opened is withdrawn once.
package struct GatewayMachine: Sendable {
    package struct Limits: Sendable {
        /// Links of all agents.
        package var agents = 1_024
        /// Of all agents.
        package var names = 4_096
        package var namesPerAgent = 100
        package var namesPerLink = 100
        package var ports = PortPolicy.any
        /// Whether a name is published only when its backend answers.
        package var probesBackends = false

        package init() {}
    }

    /// An agent that has logged in over a link.
    package struct Login: Equatable, Sendable {
        package let identity: AgentIdentity
        /// The key under which registrations and withdrawals are counted: the identity, or the source of an agent that
        /// can create identities at will.
        package let payer: String
        /// The program; the same from link to link.
        package let run: UInt64
        /// Names that the agent may have; nil for the gateway's own limit.
        package var maxNames: Int?
        /// Whether the link can tell whether a backend answers.
        package let canProbe: Bool

        package init(identity: AgentIdentity, payer: String, run: UInt64, maxNames: Int? = nil, canProbe: Bool = true) {
            self.identity = identity
            self.payer = payer
            self.run = run
            self.maxNames = maxNames
            self.canProbe = canProbe
        }
    }

    /// What a link loses or does not get, for the log.
    package struct Warning: Equatable, Sendable {
        package let text: String
        package let name: Name?
        package let code: ErrorCode
        /// Whether it follows a change of rights: such lines are all written.
        package let isChange: Bool
    }

    package enum Hit: Equatable, Sendable {
        case registrations
        /// The number of payers that were forgotten.
        case registrationTable(Int)
        case withdrawals
    }

    package enum Effect: Equatable, Sendable {
        /// Ask whether the link's agent may have a name; `authorized` or `refused` follows.
        case ask(LinkID, number: UInt16, Name, port: UInt16)
        /// The answer is not awaited any more.
        case cancelQuestion(LinkID, number: UInt16)
        /// Open the exposure's listeners, paused; `opened` or `notOpened` follows.
        case open(ExposureID, PortRequest)
        /// The exposure's visitors go to this link, from now on by this number.
        case attach(ExposureID, LinkID, number: UInt16)
        /// Ask over the link whether the backend answers; `probed` follows.
        case probe(ExposureID, LinkID)
        /// Have the registrars publish it; `published` follows.
        case publish(ExposureID)
        /// Tell the agent that it has the name, and let visitors in.
        case grant(ExposureID, LinkID, number: UInt16)
        /// Close the listeners, and have the registrars withdraw it.
        case withdraw(ExposureID)
        /// Tell the agent that it does not get a name.
        case refuse(LinkID, number: UInt16, Refusal)
        /// Tell the agent that it does not have a name any more.
        case takeBack(LinkID, number: UInt16, Refusal)
        /// Another link of the agent has the name now: a line of the log.
        case lost(LinkID, Name, ErrorCode)
        case warn(LinkID, Warning)
        /// End the streams of a name.
        case cutStreams(LinkID, number: UInt16)
        /// End the link after telling the agent why.
        case end(LinkID, Refusal, retryAfterSeconds: UInt16)
        /// Close the link: its program has a newer one.
        case close(LinkID)
        case hit(Hit)
        /// Save the ports of names.
        case savePorts
    }

    struct Question: Sendable {
        let name: Name
        let port: UInt16
    }

    enum LinkState: Sendable {
        case open
        /// Its streams finish, and it takes nothing new.
        case draining
        case ending
    }

    struct Link: Sendable {
        var login: Login
        var state = LinkState.open
        var questions: [UInt16: Question] = [:]
        var exposures: [UInt16: ExposureID] = [:]

        /// Whether it counts as a link of its agent.
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

    /// Links of one program: its present one, and one that does not know yet that it is dead.
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
    /// Those before `firstEffect` have been returned.
    private var effects: [Effect] = []
    private var firstEffect = 0

    package init(_ limits: Limits, ledger: PortLedger) {
        self.limits = limits
        self.ledger = ledger
        self.registry = Registry(maximumNamesPerLink: limits.namesPerLink)
        self.registrations = RegistrationGate(limits: RegistrationLimits(namesPerAgent: limits.namesPerAgent))
    }

    // MARK: - What follows

    /// The next thing to do; nil when there is nothing until the next event. Call it after each event until it is nil.
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

    /// Whether an agent has a link.
    func hasLink(of identity: AgentIdentity) -> Bool {
        self.linksByAgent[identity]?.contains { self.links[$0]?.isPresent ?? false } ?? false
    }

    /// Nil when the exposure is gone.
    package func link(of exposure: ExposureID) -> LinkID? { self.exposures[exposure]?.link }

    /// Drops expired state; call it about once a second.
    package mutating func tick(now: Milliseconds) { self.registrations.forgetFull(now: now) }

    // MARK: - Links

    /// An agent's login is good. A former link of the same program makes way.
    ///
    /// - Parameter maxLinks: links that the agent may have.
    /// - Returns: why the agent gets no further link; nil when the link is here from now on.
    package mutating func loggedIn(_ id: LinkID, _ login: Login, maxLinks: Int) -> Refusal? {
        guard !self.isDraining else { return Refusal(code: .drain, text: "the gateway is stopping") }
        let present = self.linksByAgent[login.identity, default: []].filter { self.links[$0]?.isPresent ?? false }
        let own = present.filter { self.links[$0]?.login.run == login.run }.sorted()
        let former = own.dropLast(Self.maxLinksPerRun - 1)
        guard present.count - own.count < maxLinks else {
            return Refusal(code: .tooManyLinks, text: "the agent has \(present.count) links already")
        }
        guard self.links.values.count(where: \.isPresent) - former.count < self.limits.agents else {
            return Refusal(code: .tooManyLinks, text: "the gateway has reached its limit of agents")
        }
        for older in former {
            self.links[older]?.state = .ending
            self.emit(.close(older))
        }
        self.links[id] = Link(login: login)
        self.linksByAgent[login.identity, default: []].insert(id)
        return nil
    }

    /// One side sent GOAWAY: the link gets no more names, and its streams finish. It keeps its names until they are
    /// dropped or taken over.
    package mutating func linkIsDraining(_ id: LinkID) {
        if self.links[id]?.state == .open { self.links[id]?.state = .draining }
        self.cancelQuestions(of: id)
    }

    /// The link is being closed. Its names stay until it has ended, so that a newer link can take them over.
    package mutating func linkIsEnding(_ id: LinkID) { self.links[id]?.state = .ending }

    /// The link is gone, and with it the names that no other link has taken over.
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

    /// The gateway stops: no new links and names.
    package mutating func drain() { self.isDraining = true }

    /// The link gives all its names back.
    package mutating func dropNames(of link: LinkID) {
        for (_, id) in self.links[link]?.exposures.sorted(by: { $0.key < $1.key }) ?? [] { self.withdraw(id) }
    }

    // MARK: - Ends

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

    /// The name is free, and no more visitors come to it.
    mutating func withdraw(_ id: ExposureID) {
        guard let exposure = self.exposures.removeValue(forKey: id) else { return }
        // Nothing happens if another link has taken the name.
        self.registry.unregister(exposure.name, link: exposure.link, exposure: exposure.number)
        self.links[exposure.link]?.exposures[exposure.number] = nil
        // Without listeners there is nothing to withdraw.
        if case .opening = exposure.phase { return }
        self.emit(.withdraw(id))
    }
}
