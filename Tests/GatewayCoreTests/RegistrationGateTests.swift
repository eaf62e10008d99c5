import GatewayCore
import Testing

@Suite("Rate limit of registrations")
struct RegistrationGateTests {
    private let limits = RegistrationLimits(namesPerAgent: 256)

    /// How many of `count` registrations are allowed.
    private func allowed(_ gate: inout RegistrationGate, _ count: Int, of identity: String, at now: UInt64) -> Int {
        (0..<count).count { _ in gate.take(identity, now: now) }
    }

    @Test("an agent with the maximum of names can reconnect four times at once, then every 15 s")
    func honest() {
        var gate = RegistrationGate(limits: self.limits)
        for _ in 0..<4 { #expect(self.allowed(&gate, 256, of: "a", at: 1_000) == 256) }
        // 17 a second are 255 in 15 s.
        for round in 1...20 { #expect(self.allowed(&gate, 255, of: "a", at: 1_000 + UInt64(round) * 15_000) == 255) }
    }

    @Test("an agent above its rate is refused until time has passed; others are not")
    func hasty() {
        var gate = RegistrationGate(limits: self.limits)
        #expect(self.allowed(&gate, 2_000, of: "a", at: 0) == self.limits.burst)
        #expect(self.allowed(&gate, 16, of: "b", at: 0) == 16)
        #expect(self.allowed(&gate, 2_000, of: "a", at: 1_000) == self.limits.perSecond)
    }

    @Test("an agent limited to one name may still register")
    func least() {
        let limits = RegistrationLimits(namesPerAgent: 1)
        #expect((limits.burst, limits.perSecond) == (4, 1))
    }

    @Test("an agent is remembered until its bucket is full again")
    func memory() {
        var gate = RegistrationGate(limits: self.limits)
        _ = self.allowed(&gate, 34, of: "a", at: 0)
        _ = self.allowed(&gate, 1, of: "b", at: 0)
        gate.forgetFull(now: 1_000)
        #expect(gate.count == 1)
        gate.forgetFull(now: 2_000)
        #expect(gate.count == 0)
    }

    @Test("the number of remembered agents is bounded: those that used least are forgotten first")
    func bounded() {
        var gate = RegistrationGate(limits: self.limits)
        #expect(self.allowed(&gate, self.limits.burst, of: "hasty", at: 0) == self.limits.burst)
        var forgotten = 0
        for number in 0..<(2 * RegistrationGate.maxPayers) {
            _ = gate.take("n\(number)", now: 0) { forgotten += $0 }
            #expect(gate.count <= RegistrationGate.maxPayers)
        }
        #expect(forgotten + gate.count == 2 * RegistrationGate.maxPayers + 1)
        let isAllowed = gate.take("hasty", now: 0)
        #expect(!isAllowed)
    }
}
