import Modules
import Reactor
import Testing
import Timing
import Wire

/// Agents, a registrar that answers late, fails and loses names, and a proxy that the registrar configures.
@Suite("Simulation of a registrar's queue")
struct RegistrarQueueSimulationTests {
    @Test("the proxy ends up with the wanted names, whatever fails and in any order", arguments: 0..<20)
    func seeds(_ block: Int) throws {
        for seed in block * 25..<(block + 1) * 25 {
            var simulation = try Simulation(seed: UInt64(seed))
            for _ in 0..<400 { try simulation.step() }
            if seed % 4 == 0 { try simulation.close() } else { try simulation.settle() }
        }
    }
}

private struct Simulation {
    private struct Running {
        let work: RegistrarQueue.Work
        let done: Milliseconds
    }

    private let seed: UInt64
    private var state: UInt64
    private let queue: RegistrarQueue
    private var now: Milliseconds = 0
    private var running: [UInt64: Running] = [:]
    /// The names that the agents want, with the ticket of the request. Once it is answered, the ticket is nil.
    private var wanted: [Name: (exposure: PublicExposure, ticket: UInt64?)] = [:]
    /// The routes of the proxy. An action in progress may or may not have taken effect.
    private var proxy: [Name: PublicExposure] = [:]
    private var isBroken = false
    private var isOver = false
    /// The longest time that the registrar takes for an action, in milliseconds.
    private var slowest = 1_500

    init(seed: UInt64) throws {
        self.seed = seed
        self.state = seed &* 0x9E37_79B9_7F4A_7C15 | 1
        var traits = RegistrarQueue.Traits(label: "simulated")
        var limits = WithdrawalLimits()
        (limits.perAgent, limits.total) = (4, 8)
        self.queue = RegistrarQueue(traits, limits: limits)
        traits.maxAtOnce = [nil, 1, 2][self.random(3)]
        traits.resetPeriod = [nil, 5_000][self.random(2)]
        traits.resetKeepsNames = self.random(2) == 0
        self.queue.traits = traits
        self.queue.start()
        try self.act()
    }

    private mutating func random(_ bound: Int) -> Int {
        self.state ^= self.state << 13
        self.state ^= self.state >> 7
        self.state ^= self.state << 17
        return Int(self.state >> 16) % bound
    }

    mutating func step() throws {
        let name = try #require(Name("name-\(self.random(6))"))
        switch self.random(10) {
        case 0...2:
            guard self.wanted[name] == nil else { break }
            let identity = "agent-\(self.random(3))"
            guard !self.queue.isFull(for: name, of: identity) else { break }
            let port = UInt16(1 + self.random(9))
            guard !self.queue.isLeaving(port, exceptOf: identity),
                !self.wanted.values.contains(where: { $0.exposure.address?.port == port })
            else { break }
            try self.expectNobodyElse(at: port, than: identity)
            let exposure = PublicExposure(
                name: name, identity: identity, address: SocketAddress("127.0.0.1", port: port))
            self.wanted[name] = (exposure, self.queue.publish(exposure, now: self.now))
        case 3...4:
            guard let exposure = self.wanted.removeValue(forKey: name)?.exposure else { break }
            self.queue.withdraw(exposure, now: self.now)
        case 5: self.isBroken = self.random(3) == 0
        case 6: self.queue.reconcile()
        case 7:
            // Another program removes a route.
            if self.queue.traits.resetPeriod != nil { self.proxy[name] = nil }
        default: try self.pass(UInt64(self.random(2_000)))
        }
        try self.act()
    }

    /// Makes everything work again. The queue must then become idle.
    mutating func settle() throws {
        (self.isBroken, self.slowest) = (false, 500)
        for _ in 0..<200 { try self.pass(5_000) }
        #expect(self.queue.pendingCount == 0, "seed \(self.seed)")
        #expect(self.proxy == self.wanted.mapValues(\.exposure), "seed \(self.seed)")
        #expect(self.wanted.values.allSatisfy { $0.ticket == nil }, "seed \(self.seed): an answer is missing")
        // A failure is reported until the next attempt.
        let last = try QueueFixture.exposure("last", port: 10)
        self.wanted[last.name] = (last, self.queue.publish(last, now: self.now))
        try self.act()
        try self.pass(5_000)
        #expect(!self.queue.isFailing, "seed \(self.seed): \(self.queue.failure ?? "")")
        for exposure in self.wanted.values.map(\.exposure) { self.queue.withdraw(exposure, now: self.now) }
        self.wanted = [:]
        self.queue.close(now: self.now)
        try self.act()
        try self.pass(5_000)
        #expect(self.isOver && self.proxy.isEmpty, "seed \(self.seed)")
    }

    /// Stops the gateway, whether or not the registrar works.
    mutating func close() throws {
        for exposure in self.wanted.values.map(\.exposure) where self.random(4) > 0 {
            self.wanted[exposure.name] = nil
            self.queue.withdraw(exposure, now: self.now)
        }
        self.queue.close(now: self.now)
        try self.act()
        try self.pass(60_000)
        #expect(self.isOver && self.queue.nextDeadline == nil, "seed \(self.seed)")
    }

    /// When the queue considers a port free, the proxy must not lead visitors of another agent's name to it.
    private func expectNobodyElse(at port: UInt16, than identity: String) throws {
        var led = Array(self.proxy.values)
        for case .publish(let exposure) in self.running.values.map(\.work) { led.append(exposure) }
        let others = led.filter { $0.address?.port == port && $0.identity != identity }
        #expect(others.isEmpty, "seed \(self.seed): port \(port) still leads to a former name")
    }

    // MARK: - Time

    private mutating func pass(_ span: Milliseconds) throws {
        let end = self.now + span
        while true {
            let done = self.running.min { ($0.value.done, $0.key) < ($1.value.done, $1.key) }
            let deadline = self.queue.nextDeadline ?? .max
            guard min(done?.value.done ?? .max, deadline) <= end else { break }
            if let (id, work) = done, work.done <= deadline {
                self.now = max(self.now, work.done)
                self.running[id] = nil
                self.finish(id, work.work)
            } else {
                self.now = max(self.now, deadline)
                self.queue.timerFired(now: self.now)
            }
            try self.act()
        }
        self.now = end
    }

    private mutating func finish(_ id: UInt64, _ work: RegistrarQueue.Work) {
        let fails = self.isBroken && self.random(2) == 0
        let error = fails ? RegistrarError(reason: "is broken") : nil
        // A failed action may have taken effect.
        let happens = !fails || self.random(2) == 0
        switch work {
        case .publish(let exposure):
            if happens { self.proxy[exposure.name] = exposure }
            self.queue.ended(id, error, now: self.now)
        case .withdraw(let exposure):
            if happens { self.proxy[exposure.name] = nil }
            self.queue.ended(id, error, now: self.now)
        case .reset(let keeping):
            if happens {
                let names = Set(keeping.map(\.name))
                self.proxy = self.proxy.filter { names.contains($0.key) }
            }
            let missing = keeping.filter { self.proxy[$0.name] != $0 }
            self.queue.resetEnded(id, error.map { .failure($0) } ?? .success(missing), now: self.now)
        }
    }

    private mutating func act() throws {
        while let action = self.queue.popAction() {
            switch action {
            case .begin(let work, let id):
                #expect(!self.isOver, "seed \(self.seed): \(work) begins when the registrar is closed")
                self.expectAlone(work)
                self.running[id] = Running(work: work, done: self.now + UInt64(self.random(self.slowest)))
            case .cancel(let id): self.running[id] = nil
            case .answer(let name, let ticket, let failure):
                guard let wish = self.wanted[name], wish.ticket == ticket else { break }
                self.wanted[name]?.ticket = nil
                if failure != nil {
                    // The agent is refused and drops the name.
                    self.wanted[name] = nil
                    self.queue.withdraw(wish.exposure, now: self.now)
                }
            case .close:
                #expect(!self.isOver, "seed \(self.seed): closed twice")
                self.isOver = true
            case .log, .abandoned: break
            }
        }
    }

    /// At most one action per name, no more actions than the registrar allows, and none beside a reset.
    private func expectAlone(_ work: RegistrarQueue.Work) {
        let others = self.running.values.map(\.work)
        #expect(self.running.count < self.queue.traits.maxAtOnce ?? .max, "seed \(self.seed)")
        switch work {
        case .reset: #expect(others.isEmpty, "seed \(self.seed)")
        case .publish(let exposure), .withdraw(let exposure):
            let clash = others.contains { other in
                switch other {
                case .reset: true
                case .publish(let another), .withdraw(let another): another.name == exposure.name
                }
            }
            #expect(!clash, "seed \(self.seed): \(work) beside \(others)")
        }
    }
}
