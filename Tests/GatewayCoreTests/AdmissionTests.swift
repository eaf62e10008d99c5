import GatewayCore
import Testing
import Timing

private func remote(_ key: UInt64) -> Source { Source(key: key) }
private let trusted = Source(key: 0x0A00_0001, standing: .trusted)
private let local = Source(key: 0x7F00_0001, standing: .ownMachine)

@Suite("Admission")
struct AdmissionTests {
    @Test("makes room by closing the unauthenticated connection that has gone longest without progress")
    func eviction() {
        var limits = AdmissionLimits()
        limits.strangers = 3
        var admission = Admission(limits: limits)
        for id in 1...3 {
            #expect(admission.connected(UInt64(id), from: remote(UInt64(id)), now: UInt64(id)) == .admit)
        }
        admission.progressed(1, now: 10)
        #expect(admission.connected(4, from: remote(4), now: 11) == .admitInsteadOf(2))
        #expect(admission.strangerCount == 3)
        admission.left(1)
        #expect(admission.connected(5, from: remote(5), now: 12) == .admit)
    }

    @Test("a source at its limit makes room among its own connections")
    func perSource() {
        var limits = AdmissionLimits()
        limits.strangersPerSource = 2
        var admission = Admission(limits: limits)
        _ = admission.connected(1, from: remote(9), now: 0)
        _ = admission.connected(2, from: remote(1), now: 1)
        _ = admission.connected(3, from: remote(1), now: 2)
        #expect(admission.isFull(of: remote(1)) && !admission.isFull(of: remote(9)))
        #expect(admission.connected(4, from: remote(1), now: 3) == .admitInsteadOf(2))
    }

    @Test("keeps places for agents that have lost their connection, for as many as their source has and two")
    func returning() {
        var limits = AdmissionLimits()
        (limits.strangers, limits.strangersPerSource) = (2, 2)
        var admission = Admission(limits: limits)
        admission.isAway(remote(1))
        admission.isAway(remote(1))
        _ = admission.connected(1, from: remote(9), now: 0)
        _ = admission.connected(2, from: remote(9), now: 0)
        for id: UInt64 in 3...6 { #expect(admission.connected(id, from: remote(1), now: 1) == .admit) }
        #expect(admission.strangerCount == 6)
        // The next one counts as a stranger, and strangers do not displace the others.
        #expect(admission.connected(7, from: remote(1), now: 2) == .admitInsteadOf(1))
        #expect(admission.connected(8, from: remote(8), now: 3) == .admitInsteadOf(2))
        admission.left(3)
        #expect(admission.connected(9, from: remote(1), now: 4) == .admit)
        for id: UInt64 in [4, 5, 6, 7, 8, 9] { admission.left(id) }
        admission.isBack(remote(1))
        admission.isBack(remote(1))
        #expect(admission.strangerCount == 0)
        _ = admission.connected(10, from: remote(1), now: 5)
        _ = admission.connected(11, from: remote(2), now: 5)
        #expect(admission.connected(12, from: remote(1), now: 6) == .admitInsteadOf(10))
    }

    @Test("a trusted source has neither limits nor penalties; the gateway's own machine has limits only")
    func standing() {
        var limits = AdmissionLimits()
        (limits.strangersPerSource, limits.loginsPerSource, limits.strangers) = (2, 3, 100)
        var admission = Admission(limits: limits)
        for (source, bounded) in [(trusted, false), (local, true)] {
            let verdicts = (1...5).map { admission.connected($0, from: source, now: 0) }
            #expect(verdicts.contains(.admitInsteadOf(1)) == bounded)
            let logins = (1...5).map { admission.loginArrived($0) }
            #expect(logins.allSatisfy { $0 == .judge })
            for id in 1...5 as ClosedRange<UInt64> { admission.left(id) }
            for login in 0..<10 as Range<UInt64> { _ = admission.loginRefused(login, from: source, now: 0) }
            _ = admission.penalize(source, .protocolError, now: 0)
            #expect(admission.penalty(of: source, now: 0) == 0)
        }
    }

    @Test("by default 256 unauthenticated connections are allowed, 16 per source")
    func defaults() {
        var admission = Admission()
        for id in 0..<256 {
            #expect(admission.connected(UInt64(id), from: remote(UInt64(id / 16)), now: UInt64(id)) == .admit)
        }
        #expect(admission.isFull(of: remote(0)) && !admission.isFull(of: remote(99)))
        #expect(admission.connected(999, from: remote(15), now: 999) == .admitInsteadOf(240))
        #expect(admission.connected(1_000, from: remote(99), now: 999) == .admitInsteadOf(0))
    }

    @Test("a source is counted as penalized until its penalty has expired")
    func countedPenalties() {
        var admission = Admission()
        _ = admission.penalize(remote(1), .badLogin, now: 0)
        _ = admission.penalize(remote(1), .badLogin, now: 0)
        _ = admission.penalize(remote(2), .noLogin, now: 0)
        _ = admission.penalize(local, .badLogin, now: 0)
        #expect([0, 999, 1_000, 9_999, 10_000].map { admission.penaltyCount(now: $0) } == [2, 2, 1, 1, 0])
    }

    @Test("hung connections never keep an honest agent out")
    func hung() {
        var admission = Admission()
        for id in 0..<1_000 { _ = admission.connected(UInt64(id), from: remote(UInt64(id)), now: UInt64(id)) }
        guard case .admitInsteadOf = admission.connected(5_000, from: remote(77_777), now: 2_000) else {
            Issue.record("kept out")
            return
        }
        // Its handshake progresses while further connections arrive, fewer than there are slots.
        for id in 0..<200 {
            admission.progressed(5_000, now: 2_000 + UInt64(id))
            #expect(
                admission.connected(UInt64(6_000 + id), from: remote(UInt64(900_000 + id)), now: 2_000 + UInt64(id))
                    != .admitInsteadOf(5_000))
        }
    }

    @Test("penalties add up, are enforced from 15 s on, expire and are capped")
    func penalties() {
        var admission = Admission()
        func wait(_ id: UInt64, from source: Source, now: Milliseconds) -> Milliseconds {
            #expect(admission.connected(id, from: source, now: now) == .admit, "a penalty must not refuse a connection")
            return admission.greeted(id, now: now)
        }
        _ = admission.penalize(remote(1), .protocolError, now: 0)
        #expect(wait(1, from: remote(1), now: 0) == 0)
        _ = admission.penalize(remote(1), .badLogin, now: 0)
        #expect(wait(2, from: remote(1), now: 0) == 3_000)
        #expect(wait(3, from: remote(2), now: 0) == 0)
        #expect(wait(4, from: remote(1), now: 1) == 0)
        for _ in 0..<1_000 { _ = admission.penalize(remote(1), .tooSlow, now: 0) }
        #expect(admission.penalty(of: remote(1), now: 0) == 600_000)
        #expect(wait(5, from: remote(1), now: 0) == 3_000)
        #expect(admission.greeted(77, now: 0) == 0, "one that is not known")
    }

    @Test("a delayed handshake is never closed for its own source, but first for other sources")
    func waiting() {
        var limits = AdmissionLimits()
        (limits.strangersPerSource, limits.strangers) = (3, 4)
        var admission = Admission(limits: limits)
        _ = admission.connected(1, from: remote(1), now: 0)
        for _ in 0..<2 { _ = admission.penalize(remote(1), .tooSlow, now: 0) }
        for id in [2, 3] as [UInt64] {
            _ = admission.connected(id, from: remote(1), now: 1)
            #expect(admission.greeted(id, now: 1) == 3_000)
        }
        // The silent connection is closed first.
        #expect(admission.connected(4, from: remote(1), now: 2) == .admitInsteadOf(1))
        #expect(admission.greeted(4, now: 2) == 3_000)
        #expect(admission.connected(5, from: remote(1), now: 3) == .refuse)
        #expect(admission.strangerCount == 3)
        #expect(admission.connected(6, from: remote(2), now: 3) == .admit)
        // Among all sources, delayed handshakes are closed first, in order of age.
        #expect(admission.connected(7, from: remote(3), now: 3) == .admitInsteadOf(2))
        #expect(admission.connected(8, from: remote(4), now: 3) == .admitInsteadOf(3))
        #expect(admission.connected(9, from: remote(5), now: 3) == .admitInsteadOf(4))
        #expect(admission.connected(10, from: remote(5), now: 3) == .admitInsteadOf(6), "as always")
    }

    @Test("the end of its delay counts as progress of a handshake")
    func waited() {
        var limits = AdmissionLimits()
        limits.strangers = 2
        var admission = Admission(limits: limits)
        for _ in 0..<2 { _ = admission.penalize(remote(1), .tooSlow, now: 0) }
        _ = admission.connected(1, from: remote(1), now: 0)
        #expect(admission.greeted(1, now: 0) == 3_000)
        _ = admission.connected(2, from: remote(2), now: 2_999)
        #expect(admission.connected(3, from: remote(3), now: 3_000) == .admitInsteadOf(2))
    }

    @Test("a program restarting with one wrong token does not block its source, but guessing does")
    func restarted() {
        var admission = Admission()
        // Four programs, each with one attempt every 1.5 s.
        for attempt in 0..<400 as Range<UInt64> {
            _ = admission.loginRefused(attempt % 4, from: remote(1), now: 1_500 * (attempt / 4))
        }
        #expect(admission.penalty(of: remote(1), now: 1_500 * 99) < 15_000)
        #expect(admission.connected(1, from: remote(1), now: 1_500 * 99) == .admit)
        // The same token from another source counts as a guess there.
        _ = admission.loginRefused(0, from: remote(2), now: 0)
        #expect(admission.penalty(of: remote(2), now: 0) == 5_000)
        for guess in 0..<4 as Range<UInt64> { _ = admission.loginRefused(100 + guess, from: remote(3), now: 0) }
        #expect(admission.penalty(of: remote(3), now: 0) == 20_000)
        // Once it is no longer remembered, it counts as a first attempt again.
        _ = admission.loginRefused(0, from: remote(2), now: 600_000)
        #expect(admission.penalty(of: remote(2), now: 600_000) == 5_000)
        for _ in 0..<10 { _ = admission.loginRefused(7, from: local, now: 0) }
        #expect(admission.penaltyCount(now: 0) == 1 + 2, "loopback collects none")
    }

    @Test("the number of remembered refusals is bounded, and repeating one login is throttled")
    func refusedTable() {
        var limits = AdmissionLimits()
        limits.refusalTable = 2
        var admission = Admission(limits: limits)
        for login in 0..<3 as Range<UInt64> { _ = admission.loginRefused(login, from: remote(login), now: login) }
        _ = admission.loginRefused(0, from: remote(0), now: 3)
        #expect(admission.penalty(of: remote(0), now: 3) > 5_000, "it was forgotten")
        for _ in 0..<200 { _ = admission.loginRefused(9, from: remote(9), now: 10) }
        _ = admission.connected(1, from: remote(9), now: 10)
        #expect(admission.greeted(1, now: 10) == 3_000)
    }

    @Test("loopback collects no penalties")
    func loopback() {
        var admission = Admission()
        for _ in 0..<100 { _ = admission.penalize(local, .protocolError, now: 0) }
        #expect(admission.connected(1, from: local, now: 0) == .admit)
        #expect(admission.greeted(1, now: 0) == 0)
    }

    @Test("logins being authenticated count for their source until the verdict")
    func logins() {
        var limits = AdmissionLimits()
        limits.loginsPerSource = 2
        limits.strangersPerSource = 1
        var admission = Admission(limits: limits)
        func login(_ id: UInt64, from source: Source) -> Admission.LoginVerdict {
            _ = admission.connected(id, from: source, now: id)
            return admission.loginArrived(id)
        }
        #expect((1...3).map { login($0, from: remote(1)) } == [.judge, .judge, .refuse])
        #expect(login(4, from: remote(2)) == .judge, "another source has its own")
        #expect(admission.strangerCount == 4)
        // The refused connection is still unauthenticated and can be closed. Those being authenticated cannot.
        #expect(admission.connected(5, from: remote(1), now: 5) == .admitInsteadOf(3))
        admission.left(1)
        #expect(admission.loginArrived(5) == .judge)
        for id in 1...5 { admission.left(UInt64(id)) }
        #expect(admission.strangerCount == 0)
        #expect((6...8).map { login($0, from: local) } == [.judge, .judge, .refuse], "nothing is left over")
    }

    @Test("with too many pending logins, the source with most loses one to a source with fewer")
    func loginsInAll() {
        var limits = AdmissionLimits()
        limits.logins = 4
        limits.loginsPerSource = 3
        var admission = Admission(limits: limits)
        func login(_ id: UInt64, from key: UInt64) -> Admission.LoginVerdict {
            _ = admission.connected(id, from: remote(key), now: id)
            return admission.loginArrived(id)
        }
        #expect((1...3).map { login($0, from: 1) } == [.judge, .judge, .judge])
        #expect(login(4, from: 2) == .judge)
        #expect(login(5, from: 3) == .judgeInsteadOf(1))
        #expect(login(6, from: 2) == .refuse, "it would have as many as the largest then")
        #expect(admission.strangerCount == 5)
        #expect(admission.loginArrived(77) == .judge, "one that was never a stranger is not counted")
    }

    @Test("many logins from one source leave room for connections from another")
    func crowd() {
        var admission = Admission()
        var judged = 0
        for id in 0..<10_000 as Range<UInt64> {
            _ = admission.connected(id, from: remote(1), now: id)
            if admission.loginArrived(id) == .judge { judged += 1 }
        }
        #expect(judged == AdmissionLimits().loginsPerSource)
        #expect(admission.connected(20_000, from: remote(2), now: 20_000) == .admit)
        #expect(admission.loginArrived(20_000) == .judge)
    }

    @Test("the table of penalties is bounded")
    func table() {
        var limits = AdmissionLimits()
        limits.penaltyTable = 10
        var admission = Admission(limits: limits)
        for key in 0..<100 {
            // Returns whether another source's penalty was dropped, which the gateway counts.
            #expect(admission.penalize(remote(UInt64(key)), .tooSlow, now: UInt64(key)) == (key >= 10))
        }
        #expect((0..<100).count { admission.penalty(of: remote(UInt64($0)), now: 0) > 0 } == 10)
    }

    @Test("a refused login reports when it drops another source's penalty")
    func tableOfLogins() {
        var limits = AdmissionLimits()
        limits.penaltyTable = 10
        var admission = Admission(limits: limits)
        for key in 0..<20 as Range<UInt64> {
            #expect(admission.loginRefused(key, from: remote(key), now: key) == (key >= 10))
            // The source is already in the table.
            #expect(admission.loginRefused(key, from: remote(key), now: key) == false)
        }
        #expect(admission.loginRefused(0, from: local, now: 0) == false)
    }
}

@Suite("VisitorGate")
struct VisitorGateTests {
    /// Admits a visitor as `VisitorTable` does, but without ending a stalled stream to make room.
    private func arrive(
        _ gate: inout VisitorGate, _ source: Source, to agent: String = "a", now: Milliseconds = 0
    ) -> VisitorGate.Refusal? {
        if let refusal = gate.refusal(of: source, now: now) { return refusal }
        guard gate.hasShare(agent) else { return gate.isFull ? .tooMany : .tooManyOfAgent }
        gate.entered(from: source, to: agent)
        return nil
    }

    @Test("limits visitors per source and by rate, but not those from loopback")
    func bounds() {
        var limits = VisitorLimits()
        limits.perSource = 3
        limits.burst = 4
        limits.ratePerSecond = 1
        var gate = VisitorGate(limits: limits)
        for _ in 0..<3 { #expect(arrive(&gate, remote(1)) == nil) }
        #expect(arrive(&gate, remote(1)) == .tooManyFromSource)
        gate.left(remote(1), to: "a")
        #expect(arrive(&gate, remote(1)) == nil)
        gate.left(remote(1), to: "a")
        #expect(arrive(&gate, remote(1)) == .tooFastFromSource)
        #expect(arrive(&gate, remote(1), now: 1_000) == nil)
        for _ in 0..<7 { #expect(arrive(&gate, local) == nil) }
        #expect(gate.count == 10)
    }

    @Test("by default a source may have 256 visitors, 200 at once and 100 a second")
    func defaults() {
        var gate = VisitorGate()
        for _ in 0..<200 { #expect(arrive(&gate, remote(1)) == nil) }
        #expect(arrive(&gate, remote(1)) == .tooFastFromSource)
        for _ in 0..<56 { #expect(arrive(&gate, remote(1), now: 1_000) == nil) }
        #expect(arrive(&gate, remote(1), now: 1_000) == .tooManyFromSource)
        #expect(arrive(&gate, remote(2), now: 1_000) == nil)
    }

    @Test("a proxy's connections have their own limit until the PROXY header arrives")
    func unnamed() {
        var limits = VisitorLimits()
        limits.total = 2
        limits.perSource = 1
        limits.unnamed = 3
        var gate = VisitorGate(limits: limits)
        for _ in 0..<2 { #expect(arrive(&gate, local) == nil) }
        for _ in 0..<3 { #expect(gate.enterUnnamed() == nil) }
        #expect(gate.enterUnnamed() == .tooManyUnnamed)
        #expect(gate.count == 5)
        gate.unnamedLeft()
        #expect(arrive(&gate, remote(1)) == .tooMany)
        gate.left(local, to: "a")
        #expect(arrive(&gate, remote(1)) == nil)
        gate.unnamedLeft()
        #expect(arrive(&gate, remote(1)) == .tooManyFromSource)
        #expect(gate.enterUnnamed() == nil)
    }

    @Test(
        "greedy agents leave slots for others",
        arguments: [(total: 90, agents: 1, each: 80), (170, 2, 80), (9_000, 1, 8_000), (9, 1, 8), (1, 1, 1), (2, 1, 2)])
    func shares(_ total: Int, _ agents: Int, _ each: Int) {
        var limits = VisitorLimits()
        limits.total = total
        var gate = VisitorGate(limits: limits)
        for _ in 0..<total { for agent in 0..<agents { _ = arrive(&gate, local, to: "\(agent)") } }
        #expect(gate.count == agents * each)
        let free = total - agents * each
        guard free > 0 else { return #expect(arrive(&gate, local, to: "other") == .tooMany) }
        #expect(arrive(&gate, local, to: "0") == .tooManyOfAgent)
        for _ in 0..<free { #expect(arrive(&gate, local, to: "other") == nil || free > 8) }
        // Slots freed by one agent's visitors are available to all agents.
        for _ in 0..<2 { gate.left(local, to: "0") }
        #expect(arrive(&gate, local, to: "other") == nil)
    }

    @Test("a visitor being closed frees its slot at once, but is counted until it is gone")
    func leaving() {
        var limits = VisitorLimits()
        limits.total = 2
        var gate = VisitorGate(limits: limits)
        for agent in ["a", "b"] { #expect(arrive(&gate, local, to: agent) == nil) }
        gate.willLeave("a")
        #expect(!gate.isFull && gate.count == 2)
        #expect(arrive(&gate, local, to: "b") == nil)
        #expect(gate.isFull && gate.count == 3)
        gate.left(local, to: "b")
        #expect(!gate.isFull, "the one of the other agent is on its way still")
        gate.left(local, to: "a")
        #expect(gate.count == 1)
        #expect(arrive(&gate, local, to: "a") == nil)
        #expect(gate.isFull)
    }

    @Test("an agent with few visitors may have another agent's stalled stream ended")
    func modest() {
        var gate = VisitorGate()
        for _ in 0..<VisitorLimits.shareOfFree {
            #expect(gate.isModest("a"))
            gate.entered(from: local, to: "a")
        }
        #expect(!gate.isModest("a") && gate.isModest("b"))
        gate.willLeave("a")
        #expect(gate.isModest("a"))
    }
}
