import TestSupport
import Testing
import Tunnel
import Wire

/// Random traffic over a random link, from a seed. Invariants are checked in each step and at the end.
private struct Simulation {
    let seed: UInt64
    var generator: SeededGenerator
    let pair: TunnelPair
    var toOpen: Int
    let mayReset: Bool
    let limits: LinkLimits

    init(seed: UInt64) {
        self.seed = seed
        var generator = SeededGenerator(seed: seed)
        var limits = LinkLimits()
        limits.startWindow = [16_384, 65_536, 262_144].randomElement(using: &generator) ?? 65_536
        limits.helloWindow = [1_024, 16_384, 65_536].randomElement(using: &generator) ?? 16_384
        limits.linkBudget = [65_536, 1 << 20, 32 << 20].randomElement(using: &generator) ?? 1 << 20
        limits.maximumStreams = Int.random(in: 1...24, using: &generator)
        limits.pendingOpens = Int.random(in: 1...8, using: &generator)
        limits.streamQueue = [16_384, 65_536].randomElement(using: &generator) ?? 65_536
        self.limits = limits
        let largest = [0, 1, 100, 20_000, 120_000].randomElement(using: &generator) ?? 100
        let salt = UInt64.random(in: 0...UInt64.max, using: &generator)
        self.pair = TunnelPair(gatewayLimits: limits, agentLimits: limits) { id, role in
            var own = SeededGenerator(seed: salt ^ UInt64(id) << 1 ^ (role == .agent ? 1 : 0))
            return Int.random(in: 0...largest, using: &own)
        }
        self.toOpen = Int.random(in: 1...24, using: &generator)
        self.mayReset = Bool.random(using: &generator)
        self.generator = generator
    }

    mutating func run() -> [String] {
        self.pair.connect()
        var failures: [String] = []
        for _ in 0..<Int.random(in: 50...600, using: &self.generator) {
            self.step(isHealing: false)
            failures += self.check()
            if !failures.isEmpty { return failures }
        }
        for _ in 0..<200_000 {
            self.step(isHealing: true)
            if self.isQuiet { break }
        }
        failures += self.check()
        guard self.isQuiet else { return failures + ["not everything finished"] }
        for end in [self.pair.gateway, self.pair.agent] {
            if end.link.streamCount != 0 { failures.append("\(end.role): \(end.link.streamCount) streams left") }
            if end.link.grantedBytes != 0 { failures.append("\(end.role): \(end.link.grantedBytes) bytes granted") }
        }
        return failures + deliveryFailures(self.pair.gateway, self.pair.agent)
    }

    /// Every stream has a minimum, even if the budget is spent: the floor window or the window in HELLO, and the
    /// smallest send queue. A queue takes up to twice the memory of its bytes, and the queue that uses up the budget
    /// may be a larger one.
    private var maxGranted: Int {
        let window = max(self.limits.floorWindow, self.limits.helloWindow)
        return self.limits.linkBudget + (window + 2 * self.limits.floorQueue) * self.limits.maximumStreams
            + 2 * self.limits.pressureQueue
    }

    private var isQuiet: Bool {
        self.toOpen == 0 && self.pair.toAgent.isEmpty && self.pair.toGateway.isEmpty
            && self.pair.gateway.edges.isEmpty && self.pair.agent.edges.isEmpty
            && !self.pair.gateway.link.needsFlush && !self.pair.agent.link.needsFlush
    }

    private mutating func step(isHealing: Bool) {
        self.pair.now += UInt64.random(in: 0...3, using: &self.generator)
        let now = self.pair.now
        if self.toOpen > 0, isHealing || Int.random(in: 0..<4, using: &self.generator) == 0, self.pair.open() != nil {
            self.toOpen -= 1
        }
        for end in [self.pair.gateway, self.pair.agent] {
            self.accept(end, isHealing: isHealing)
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
        }
        self.carry(isHealing: isHealing)
    }

    /// Connects backends late, and refuses some.
    private mutating func accept(_ end: SimulatedEnd, isHealing: Bool) {
        while let key = end.awaitingAccept.first, isHealing || Int.random(in: 0..<3, using: &self.generator) == 0 {
            end.awaitingAccept.removeFirst()
            guard let edge = end.edges[key], !edge.wasReset else { continue }
            if self.mayReset, Int.random(in: 0..<6, using: &self.generator) == 0 {
                end.cut(edge, .refused)
            } else {
                end.accept(key, now: self.pair.now)
            }
        }
    }

    /// Moves random numbers of bytes between the ends and the wires. Frames are split anywhere.
    private mutating func carry(isHealing: Bool) {
        let now = self.pair.now
        func amount(_ generator: inout SeededGenerator) -> Int {
            isHealing ? 200_000 : [0, 1, 7, 100, 16_384, 60_000].randomElement(using: &generator) ?? 7
        }
        for (end, isAgent) in [(self.pair.agent, true), (self.pair.gateway, false)] {
            end.link.congestion(Int.random(in: 0..<3, using: &self.generator) == 0 && !isHealing, now: now)
            let output = end.output(atMost: amount(&self.generator), now: now)
            if isAgent { self.pair.toGateway += output } else { self.pair.toAgent += output }
        }
        let right = min(self.pair.toGateway.count, amount(&self.generator))
        self.pair.gateway.feed(Array(self.pair.toGateway.prefix(right)), now: now)
        self.pair.toGateway.removeFirst(right)
        let left = min(self.pair.toAgent.count, amount(&self.generator))
        self.pair.agent.feed(Array(self.pair.toAgent.prefix(left)), now: now)
        self.pair.toAgent.removeFirst(left)
    }

    private func check() -> [String] {
        var failures: [String] = []
        for end in [self.pair.gateway, self.pair.agent] {
            failures += end.failures + end.violations.map { "\(end.role) saw a violation: \($0)" }
            if end.link.grantedBytes > self.maxGranted {
                failures.append("\(end.role): \(end.link.grantedBytes) bytes granted")
            }
        }
        return failures
    }
}

@Suite("Simulation")
struct SimulationTests {
    /// `scripts/soak --simulation` tries many more seeds.
    @Test("delivers every byte and leaves nothing behind, whatever the link does", arguments: 0..<simulationParts)
    func randomTraffic(part: Int) {
        for seed in chosenSeeds(default: 1...150) where seed % UInt64(simulationParts) == UInt64(part) {
            var simulation = Simulation(seed: seed)
            let failures = simulation.run()
            if !failures.isEmpty {
                Issue.record("seed \(seed): \(failures.prefix(3))")
                return
            }
        }
    }
}
