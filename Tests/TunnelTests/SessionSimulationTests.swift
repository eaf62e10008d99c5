import TestSupport
import Testing
import Tunnel
import Wire

/// Random traffic over a session whose carriers break at random, from a seed.
private struct SessionSimulation {
    var generator: SeededGenerator
    let pair: SessionPair
    private var toOpen: Int
    private var toRegister: Int
    private var requested = 0
    private let mayReset: Bool
    /// One of this many steps breaks something.
    private let breakEvery: Int
    private let limits: LinkLimits
    private let largest: Int
    private let salt: UInt64

    init(seed: UInt64) {
        var generator = SeededGenerator(seed: seed)
        var limits = LinkLimits()
        limits.startWindow = [16_384, 65_536, 262_144].randomElement(using: &generator) ?? 65_536
        limits.helloWindow = [1_024, 16_384, 65_536].randomElement(using: &generator) ?? 16_384
        limits.linkBudget = [1 << 20, 32 << 20].randomElement(using: &generator) ?? 1 << 20
        limits.maximumStreams = Int.random(in: 1...24, using: &generator)
        limits.pendingOpens = Int.random(in: 1...8, using: &generator)
        limits.firstKept = [65_536, 131_072, 524_288].randomElement(using: &generator) ?? 65_536
        limits.maxKept = [65_536, 262_144, 16 << 20].randomElement(using: &generator) ?? 262_144
        // The clock jumps by 46 s for silent carriers.
        limits.acceptDeadline = 1_000_000
        limits.resetPatience = 1_000_000
        self.limits = limits
        let largest = [0, 1, 100, 20_000, 120_000, 400_000].randomElement(using: &generator) ?? 100
        let salt = UInt64.random(in: 0...UInt64.max, using: &generator)
        self.largest = largest
        self.salt = salt
        self.pair = SessionPair(limits: limits) { id, role in
            var own = SeededGenerator(seed: salt ^ UInt64(id) << 1 ^ (role == .agent ? 1 : 0))
            return Int.random(in: 0...largest, using: &own)
        }
        self.toOpen = Int.random(in: 1...24, using: &generator)
        self.toRegister = Int.random(in: 0...8, using: &generator)
        self.mayReset = Bool.random(using: &generator)
        self.breakEvery = [3, 10, 40, 150].randomElement(using: &generator) ?? 10
        self.generator = generator
    }

    private var ends: [SimulatedEnd] { [self.pair.gateway, self.pair.agent] }

    mutating func run() -> [String] {
        self.pair.settle()
        for _ in 0..<Int.random(in: 50...600, using: &self.generator) {
            self.step(isHealing: false)
            let failures = self.check()
            if !failures.isEmpty { return failures }
        }
        for _ in 0..<100_000 {
            self.step(isHealing: true)
            if self.isQuiet { break }
        }
        self.pair.settle()
        var failures = self.check()
        guard self.isQuiet else { return failures + ["not everything finished"] }
        for end in self.ends {
            if end.link.streamCount != 0 { failures.append("\(end.role): \(end.link.streamCount) streams left") }
            end.link.shut()
            if end.link.grantedBytes != 0 { failures.append("\(end.role): \(end.link.grantedBytes) bytes charged") }
        }
        if self.pair.agent.registered.count != self.requested {
            failures.append("\(self.requested) names requested, \(self.pair.agent.registered.count) answers")
        }
        return failures + deliveryFailures(self.pair.gateway, self.pair.agent)
    }

    private var isQuiet: Bool {
        self.toOpen == 0 && self.toRegister == 0 && self.pair.isConnected && self.pair.candidate == nil
            && self.pair.gateway.edges.isEmpty && self.pair.agent.edges.isEmpty
            && self.pair.carriers.allSatisfy { $0.toAgent.isEmpty && $0.toGateway.isEmpty }
            && !self.pair.gateway.link.needsFlush && !self.pair.agent.link.needsFlush
    }

    private func check() -> [String] {
        var failures = self.pair.failures
        for end in self.ends {
            failures += end.failures + end.violations.map { "\(end.role) saw a violation: \($0)" }
            failures += end.goodbyes.map { "\(end.role) received \($0)" }
            // The frames of one step may exceed the bound: a turn of each stream, and control frames.
            let bound = self.limits.linkBudget + max(self.limits.firstKept, self.limits.maxKept) + 512 * 1024
            if end.link.grantedBytes > bound + 65_536 * self.limits.maximumStreams {
                failures.append("\(end.role): \(end.link.grantedBytes) bytes charged")
            }
        }
        return failures
    }

    // MARK: - Steps

    private mutating func chance(_ one: Int) -> Bool { Int.random(in: 0..<one, using: &self.generator) == 0 }

    private mutating func step(isHealing: Bool) {
        self.pair.now += UInt64.random(in: 0...3, using: &self.generator)
        if isHealing { self.heal() } else if self.chance(self.breakEvery) { self.breakSomething() }
        if self.pair.current(.agent) == nil, self.pair.candidate == nil, isHealing || self.chance(3) {
            self.pair.dial()
        }
        if self.toRegister > 0, isHealing || self.chance(5) {
            self.toRegister -= 1
            self.pair.agent.link.register(Register(exposure: UInt16(self.requested), port: 0, name: "n"))
            self.requested += 1
        }
        if self.toOpen > 0, isHealing || self.chance(4),
            let key = self.pair.gateway.link.open(exposure: 0, visitor: .none, local: .none, now: self.pair.now)
        {
            self.pair.gateway.add(key)
            self.toOpen -= 1
        }
        for end in self.ends { self.work(end, isHealing: isHealing) }
        self.carry(isHealing: isHealing)
    }

    private mutating func work(_ end: SimulatedEnd, isHealing: Bool) {
        let now = self.pair.now
        while let key = end.awaitingAccept.first, isHealing || self.chance(3) {
            end.awaitingAccept.removeFirst()
            guard let edge = end.edges[key], !edge.wasReset else { continue }
            if self.mayReset, self.chance(6) { end.cut(edge, .refused) } else { end.accept(key, now: now) }
        }
        for edge in end.edges.values.sorted(by: { $0.key.id < $1.key.id }) {
            let chance = Int.random(in: 0..<100, using: &self.generator)
            if isHealing || chance < 60, !edge.isPaused {
                end.pump(edge, atMost: Int.random(in: 1...40_000, using: &self.generator), now: now)
            }
            if isHealing || chance % 3 == 0 {
                end.consume(edge, atMost: Int.random(in: 1...50_000, using: &self.generator), now: now)
            }
            if self.mayReset, !isHealing, chance >= 98 {
                if chance == 99 { end.fail(edge) } else { end.cut(edge, .aborted) }
            }
        }
        end.reap()
        if end.link.owesAcknowledgement, isHealing || self.chance(8) { end.link.acknowledge() }
    }

    private mutating func carry(isHealing: Bool) {
        for carrier in self.pair.carriers {
            for role in [Role.agent, .gateway] {
                let end = role == .agent ? self.pair.agent : self.pair.gateway
                if self.pair.current(role) === carrier {
                    end.link.congestion(!isHealing && self.chance(3), now: self.pair.now)
                }
                self.pair.send(carrier, from: role, atMost: self.amount(isHealing))
            }
            self.pair.deliver(carrier, to: .gateway, self.amount(isHealing))
            self.pair.deliver(carrier, to: .agent, self.amount(isHealing))
        }
    }

    private mutating func amount(_ isHealing: Bool) -> Int {
        isHealing ? 200_000 : [0, 1, 7, 100, 16_384, 60_000].randomElement(using: &self.generator) ?? 7
    }

    /// Breaks a carrier in one of the ways in which networks do.
    private mutating func breakSomething() {
        guard let carrier = self.pair.carriers.randomElement(using: &self.generator) else { return }
        switch Int.random(in: 0..<7, using: &self.generator) {
        case 0, 1:
            for role in [Role.agent, .gateway] { self.pair.breaks(carrier, at: role) }
        // One end does not notice.
        case 2: self.pair.breaks(carrier, at: .agent)
        case 3: self.pair.breaks(carrier, at: .gateway)
        case 4: carrier.losesToAgent = true
        case 5: carrier.losesToGateway = true
        // The agent dials beside a carrier that works.
        default: if self.pair.candidate == nil { self.pair.dial() }
        }
        if self.chance(20) { self.silence() }
    }

    /// Time passes until both ends give up a silent carrier.
    private mutating func silence() {
        guard self.pair.current(.agent) != nil, self.pair.current(.gateway) != nil else { return }
        self.pair.now += 46_000
        for (end, role) in [(self.pair.gateway, Role.gateway), (self.pair.agent, .agent)] {
            var expired: [(StreamKey, StreamExpiry)] = []
            switch end.link.tick(now: self.pair.now, expired: &expired) {
            case .lost: if let carrier = self.pair.current(role) { self.pair.breaks(carrier, at: role) }
            case .none: break
            case .close, .expired: self.pair.failures.append("\(role) ended after silence")
            }
        }
    }

    /// From now on carriers do not break.
    private mutating func heal() {
        for carrier in self.pair.carriers {
            let isBad = carrier.losesToAgent || carrier.losesToGateway
            var isHalf = false
            if case .gone = carrier.agent { isHalf = true }
            if case .gone = carrier.gateway { isHalf = true }
            guard isBad || isHalf else { continue }
            for role in [Role.agent, .gateway] { self.pair.breaks(carrier, at: role) }
        }
    }
}

@Suite("Sessions under breaking carriers")
struct SessionSimulationTests {
    /// `scripts/soak --simulation` tries many more seeds.
    @Test(
        "every byte, end and answer arrives exactly once and in order, whatever the carriers do",
        arguments: 0..<simulationParts)
    func randomBreaks(part: Int) {
        var resumed = 0
        for seed in chosenSeeds(default: 1...5_000) where seed % UInt64(simulationParts) == UInt64(part) {
            var simulation = SessionSimulation(seed: seed)
            let failures = simulation.run()
            resumed += simulation.pair.resumedCount
            if !failures.isEmpty {
                Issue.record("seed \(seed): \(failures.prefix(3))")
                return
            }
        }
        #expect(resumed > 0)
    }
}
