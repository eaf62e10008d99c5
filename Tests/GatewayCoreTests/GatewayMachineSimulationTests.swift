import GatewayCore
import Testing
import Timing
import Wire

/// Agents connect, take names from each other and leave. The authenticator, the listeners and the registrars answer
/// late, fail, or answer after everything has ended.
@Suite("Simulation of the gateway's machine")
struct GatewayMachineSimulationTests {
    @Test("each name has one holder, and everything opened is withdrawn once", arguments: 0..<20)
    func seeds(_ block: Int) throws {
        for seed in block * 25..<(block + 1) * 25 {
            var simulation = Simulation(seed: UInt64(seed))
            for _ in 0..<400 { simulation.step() }
            simulation.settle()
        }
    }
}

private struct Simulation {
    private struct Number: Hashable {
        let link: LinkID
        let number: UInt16
    }

    private struct Open {
        let name: Name
        let port: UInt16
        var holder: Number?
        var isPublished = false
    }

    private let seed: UInt64
    private var state: UInt64
    private var machine: GatewayMachine
    private var now: Milliseconds = 0
    private var links: [LinkID: AgentIdentity] = [:]
    private var ending: Set<LinkID> = []
    private var mute: Set<LinkID> = []
    private var draining: Set<LinkID> = []
    /// The link that has just lost a name to a newer one.
    private var loser: LinkID?
    private var nextLink: LinkID = 1
    private var asked: [Number] = []
    private var opening: [(ExposureID, PortRequest)] = []
    private var probing: [(ExposureID, LinkID)] = []
    private var publishing: [ExposureID] = []
    /// The open listeners.
    private var open: [ExposureID: Open] = [:]
    private var withdrawn: Set<ExposureID> = []
    /// REGISTER frames without an answer.
    private var unanswered: Set<Number> = []

    init(seed: UInt64) {
        self.seed = seed
        self.state = seed &* 0x9E37_79B9_7F4A_7C15 | 1
        var limits = GatewayMachine.Limits()
        limits.agents = 5
        limits.names = 6
        limits.namesPerAgent = 5
        limits.namesPerLink = 4
        limits.probesBackends = seed % 3 == 0
        limits.ports = seed % 5 == 0 ? .none : .range(30_000...30_007)
        self.machine = GatewayMachine(limits, ledger: PortLedger(namesPerAgent: 5))
    }

    private mutating func random(_ bound: Int) -> Int {
        self.state ^= self.state << 13
        self.state ^= self.state >> 7
        self.state ^= self.state << 17
        return Int(self.state >> 16) % bound
    }

    private mutating func anyLink() -> LinkID? {
        let links = self.links.keys.sorted()
        return links.isEmpty ? nil : links[self.random(links.count)]
    }

    mutating func step() {
        self.now += UInt64(self.random(2_000))
        switch self.random(16) {
        case 0, 1: self.login()
        case 2...5: self.register()
        case 6:
            guard let link = self.anyLink() else { break }
            let number = Number(link: link, number: UInt16(self.random(5)))
            self.unanswered.remove(number)
            self.machine.unregister(link, number: number.number)
        case 7: if let link = self.anyLink() { self.end(link) }
        case 8:
            // The agent or the operator ends the link, so its requests get no answers.
            guard let link = self.anyLink() else { break }
            self.unanswered = self.unanswered.filter { $0.link != link }
            self.mute.insert(link)
            if self.random(2) == 0 { self.drain(link) } else { self.machine.dropNames(of: link) }
        case 9:
            let open = self.open.keys.sorted()
            guard !open.isEmpty else { break }
            let id = open[self.random(open.count)]
            if self.random(2) == 0 {
                self.machine.revoke(id, .revoked, reason: "test")
            } else {
                self.machine.confirmed(id, ports: [30_000...30_003])
            }
        case 10:
            guard self.random(4) == 0, let link = self.anyLink(), let identity = self.links[link] else { break }
            self.machine.changed(identity, maxLinks: 1 + self.random(3), maxNames: 1 + self.random(5))
        default: self.answerOne()
        }
        self.follow()
        self.check()
    }

    /// Answers everything, then ends all links.
    mutating func settle() {
        while !(self.asked.isEmpty && self.opening.isEmpty && self.probing.isEmpty && self.publishing.isEmpty) {
            self.answerOne()
            self.follow()
            self.check()
        }
        let missing = self.unanswered.filter { self.links[$0.link] != nil && !self.ending.contains($0.link) }
        #expect(missing.isEmpty, "seed \(self.seed): no answer to \(missing)")
        if self.seed % 2 == 0 { self.machine.drain() }
        for link in self.links.keys.sorted() { self.machine.linkEnded(link) }
        self.links = [:]
        self.follow()
        self.check()
        #expect(self.open.isEmpty && self.machine.nameCount == 0, "seed \(self.seed)")
    }

    // MARK: - Events

    private mutating func login() {
        let identity = AgentIdentity(id: "agent-\(self.random(3))")
        let login = GatewayMachine.Login(
            identity: identity, payer: identity.id, run: UInt64(self.random(2)), canProbe: self.random(4) > 0)
        if self.machine.loggedIn(self.nextLink, login, maxLinks: 2) == nil { self.links[self.nextLink] = identity }
        self.nextLink += 1
    }

    private mutating func register() {
        guard let link = self.anyLink() else { return }
        let number = UInt16(self.random(5))
        let port = self.random(3) == 0 ? 30_000 + UInt16(self.random(9)) : 0
        let register = Register(
            exposure: number, kind: .tcp, port: port, name: self.random(20) == 0 ? "-" : "name-\(self.random(8))")
        if !self.ending.contains(link), !self.mute.contains(link) {
            self.unanswered.insert(Number(link: link, number: number))
        }
        self.machine.register(link, register, now: self.now)
    }

    private mutating func end(_ link: LinkID) {
        if self.random(2) == 0, self.ending.insert(link).inserted { return self.machine.linkIsEnding(link) }
        self.links[link] = nil
        self.machine.linkEnded(link)
    }

    private mutating func drain(_ link: LinkID) {
        self.draining.insert(link)
        self.machine.linkIsDraining(link)
    }

    private mutating func answerOne() {
        switch self.random(4) {
        case 0:
            guard !self.asked.isEmpty else { return }
            let question = self.asked.remove(at: self.random(self.asked.count))
            if self.random(5) == 0 {
                self.machine.refused(question.link, number: question.number, .nameNotAllowed, reason: "test")
            } else {
                let isFull = self.random(20) == 0
                self.machine.authorized(
                    question.link, number: question.number, ports: self.random(4) == 0 ? [30_000...30_003] : [],
                    isFull: { _, _ in isFull }, now: self.now)
            }
        case 1:
            guard !self.opening.isEmpty else { return }
            let (id, request) = self.opening.remove(at: self.random(self.opening.count))
            self.open(id, request)
        case 2:
            guard !self.probing.isEmpty else { return }
            let (id, link) = self.probing.remove(at: self.random(self.probing.count))
            self.machine.probed(id, over: link)
        default:
            guard !self.publishing.isEmpty else { return }
            let id = self.publishing.remove(at: self.random(self.publishing.count))
            self.machine.published(id, failure: self.random(5) == 0 ? "test" : nil)
        }
    }

    /// Chooses a port as the gateway does: only the wanted port if there is one, else the former port, else a free
    /// one.
    private mutating func open(_ id: ExposureID, _ request: PortRequest) {
        var port: UInt16 = 0
        if case .range(let range) = self.machine.limits.ports {
            let taken = Set(self.open.values.map(\.port))
            let wanted = request.wanted != 0 ? [request.wanted] : [request.kept].compactMap(\.self) + range
            let allowed = wanted.filter { port in
                request.allowed.isEmpty || request.allowed.contains { $0.contains(port) }
            }
            guard let free = allowed.first(where: { !taken.contains($0) }) else {
                return self.machine.notOpened(id, Refusal(code: .portTaken, text: "test"))
            }
            port = free
        }
        self.open[id] = Open(name: request.name, port: port)
        self.machine.opened(id, port: port)
    }

    // MARK: - Effects

    private mutating func follow() {
        while let effect = self.machine.popEffect() {
            defer { if case .lost(let link, _, _) = effect { self.loser = link } else { self.loser = nil } }
            switch effect {
            case .ask(let link, let number, _, _): self.asked.append(Number(link: link, number: number))
            case .cancelQuestion(let link, let number):
                self.asked.removeAll { $0 == Number(link: link, number: number) }
            case .open(let id, let request): self.opening.append((id, request))
            case .attach(let id, let link, let number):
                self.open[id]?.holder = Number(link: link, number: number)
                #expect(self.open[id] != nil, "seed \(self.seed): \(id) has no listeners")
            case .probe(let id, let link): self.probing.append((id, link))
            case .publish(let id):
                #expect(!(self.open[id]?.isPublished ?? true), "seed \(self.seed): \(id) is published twice")
                self.open[id]?.isPublished = true
                self.publishing.append(id)
            case .grant(let id, let link, let number):
                #expect(self.open[id]?.holder == Number(link: link, number: number), "seed \(self.seed)")
                #expect(self.open[id]?.isPublished == true, "seed \(self.seed)")
                self.answered(link, number)
            case .withdraw(let id):
                #expect(self.open.removeValue(forKey: id) != nil, "seed \(self.seed): \(id) was not open")
                #expect(self.withdrawn.insert(id).inserted, "seed \(self.seed): \(id) is withdrawn twice")
                // The registrar may answer nevertheless.
                if self.random(2) == 0 { self.publishing.removeAll { $0 == id } }
            case .refuse(let link, let number, _): self.answered(link, number)
            case .takeBack(let link, let number, _):
                #expect(self.loser != link || !self.draining.contains(link), "seed \(self.seed)")
                self.unanswered.remove(Number(link: link, number: number))
            case .end(let link, _, _):
                #expect(self.loser != link || !self.draining.contains(link), "seed \(self.seed): streams are cut")
                self.ending.insert(link)
            case .close(let link), .retire(let link): self.ending.insert(link)
            case .takenOver(let id, let former):
                #expect(self.links[former] != nil, "seed \(self.seed): \(id) was taken over from a link that is gone")
                #expect(self.open[id]?.holder?.link != former || self.open[id] != nil, "seed \(self.seed)")
            case .lost, .warn, .cutStreams, .hit, .savePorts: break
            }
        }
    }

    private mutating func answered(_ link: LinkID, _ number: UInt16) {
        let isAwaited = self.unanswered.remove(Number(link: link, number: number)) != nil
        #expect(isAwaited || self.mute.contains(link), "seed \(self.seed): two answers to \(link) \(number)")
    }

    private func check() {
        var names: Set<Name> = []
        var holders: Set<Number> = []
        for (id, open) in self.open {
            #expect(names.insert(open.name).inserted, "seed \(self.seed): two listeners of \(open.name)")
            guard let holder = open.holder else {
                Issue.record("seed \(self.seed): \(id) belongs to no link")
                continue
            }
            #expect(self.links[holder.link] != nil, "seed \(self.seed): \(id) belongs to a link that is gone")
            #expect(holders.insert(holder).inserted, "seed \(self.seed): \(holder) has two names")
            let known = self.machine.registry.holder(of: open.name)
            #expect(known?.link == holder.link && known?.exposure == holder.number, "seed \(self.seed)")
            #expect(self.links[holder.link] == known?.identity, "seed \(self.seed): another agent's link")
        }
        let ports = self.open.values.map(\.port).filter { $0 != 0 }
        #expect(Set(ports).count == ports.count, "seed \(self.seed): two names have one port")
        #expect(self.machine.nameCount <= self.machine.limits.names, "seed \(self.seed)")
    }
}
