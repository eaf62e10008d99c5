import Modules
import Testing

/// Withdrawals are limited per agent, and the limit does not affect other agents.
@Suite("Limits on withdrawals")
struct RegistrarQueueBoundTests {
    private static func limits(perAgent: Int, total: Int) -> WithdrawalLimits {
        var limits = WithdrawalLimits()
        (limits.perAgent, limits.total) = (perAgent, total)
        return limits
    }

    private func exposure(
        _ name: String, of identity: String = "x", payer: String? = nil, port: UInt16 = 4_711
    ) throws -> PublicExposure {
        try QueueFixture.exposure(name, of: identity, payer: payer, port: port)
    }

    private func isFull(_ stand: QueueFixture, for name: String = "new", of identity: String) throws -> Bool {
        stand.queue.isFull(for: try self.exposure(name).name, of: identity)
    }

    @Test("a name whose publication never started is withdrawn only if an older publication exists")
    func nothingToTakeBack() throws {
        let stand = QueueFixture()
        let registrar = stand.registrar
        registrar.maxAtOnce = 1
        stand.start()
        stand.publish(try exposure("old")) { _ in }
        registrar.answersLater = true
        stand.publish(try exposure("busy")) { _ in }
        // Queued after `busy`. It was published before.
        stand.withdraw(try exposure("old"))
        stand.publish(try exposure("old", port: 1)) { _ in }
        stand.withdraw(try exposure("old", port: 1))
        // Also queued, but never published.
        stand.publish(try exposure("fresh", port: 2)) { _ in }
        stand.withdraw(try exposure("fresh", port: 2))
        #expect(stand.pendingCount == 2)
        #expect(stand.leavingPorts(exceptOf: "another") == [4_711], "no visitor is led to the other ports")
        registrar.letGo()
        registrar.letGo()
        #expect(registrar.calls == ["reset", "publish old", "publish busy", "withdraw old"])
        #expect(stand.pendingCount == 0 && stand.leavingPorts(exceptOf: "another").isEmpty)
        // A withdrawn name leaves no trace.
        stand.publish(try exposure("busy")) { _ in }
        stand.publish(try exposure("old")) { _ in }
        stand.withdraw(try exposure("old"))
        #expect(stand.pendingCount == 1)
        registrar.letGo()
    }

    @Test("agents take turns")
    func turns() throws {
        let stand = QueueFixture()
        let registrar = stand.registrar
        registrar.maxAtOnce = 1
        stand.start()
        registrar.answersLater = true
        for number in 0..<100 { stand.publish(try exposure("many-\(number)", of: "many")) { _ in } }
        stand.publish(try exposure("one", of: "few")) { _ in }
        stand.publish(try exposure("two", of: "few")) { _ in }
        for _ in 0..<5 { registrar.letGo() }
        let begun = registrar.calls.dropFirst(2)
        #expect(begun.firstIndex(of: "publish one").map { $0 - begun.startIndex } ?? 9 <= 1)
        #expect(begun.firstIndex(of: "publish two").map { $0 - begun.startIndex } ?? 9 <= 3)
    }

    @Test("names removed by a reset are published again before all queued names")
    func keptNamesFirst() throws {
        let stand = QueueFixture()
        let registrar = stand.registrar
        registrar.maxAtOnce = 1
        registrar.resetPeriod = 60_000
        stand.start()
        let kept = ["a", "b", "c"]
        for name in kept { stand.publish(try exposure(name)) { _ in } }
        registrar.answersLater = true
        for number in 0..<50 { stand.publish(try exposure("many-\(number)", of: "many")) { _ in } }
        registrar.missing = Set(kept)
        stand.reconcile()
        // The first of the many, then the reset, then the names that it removed.
        for _ in 0..<4 { registrar.letGo() }
        #expect(registrar.calls.suffix(3).sorted() == kept.map { "publish \($0)" })
        registrar.answersLater = false
        registrar.missing = []
        registrar.letGo()
        #expect(stand.pendingCount == 0)
    }

    @Test("names whose republication fails take turns with others, and are retried until it succeeds")
    func failingRepairs() throws {
        let stand = QueueFixture()
        let registrar = stand.registrar
        registrar.maxAtOnce = 1
        registrar.resetPeriod = 600_000
        stand.start()
        let kept = ["a", "b", "c"]
        for name in kept { stand.publish(try exposure(name)) { _ in } }
        registrar.missing = Set(kept)
        registrar.failing = Set(kept.map { "publish \($0)" })
        stand.reconcile()
        registrar.answersLater = true
        stand.publish(try exposure("busy", of: "other")) { _ in }
        // Their next attempts are due, but wait for `busy`.
        stand.advance(by: 120_000)
        stand.publish(try exposure("new", of: "other")) { _ in }
        registrar.failing = []
        registrar.missing = []
        for _ in 0..<2 { registrar.letGo() }
        #expect(registrar.calls.last == "publish new")
        registrar.answersLater = false
        registrar.letGo()
        #expect(stand.pendingCount == 0 && kept.allSatisfy { registrar.count("publish \($0)") == 3 })
    }

    @Test("a registrar whose reset removes all names is not reset, however many withdrawals are queued")
    func noReset() throws {
        let stand = QueueFixture(limits: Self.limits(perAgent: 8, total: 64))
        let registrar = stand.registrar
        registrar.resetKeepsNames = false
        stand.start()
        stand.publish(try exposure("honest", of: "honest")) { _ in }
        let names = (0..<200).map { "n\($0)" }
        registrar.failing = Set(names.map { "withdraw \($0)" })
        for name in names {
            stand.publish(try exposure(name, of: "many")) { _ in }
            stand.withdraw(try exposure(name, of: "many"))
        }
        // 1.75 s later. A reset would come after 1 s.
        #expect(stand.run { registrar.count("withdraw n199") == 4 })
        #expect(registrar.calls.count { $0.hasPrefix("reset") } == 1 && registrar.count("publish honest") == 1)
        registrar.failing = []
        #expect(stand.run { stand.pendingCount == 0 })
    }

    @Test("an agent with too many queued withdrawals gets no new names until some are done; others do")
    func perAgent() throws {
        let stand = QueueFixture(limits: Self.limits(perAgent: 4, total: 16))
        let registrar = stand.registrar
        registrar.resetKeepsNames = false
        stand.start()
        for number in 0..<4 { stand.publish(try exposure("n\(number)", of: "many")) { _ in } }
        registrar.answersLater = true
        #expect(try !isFull(stand, of: "many"), "names that it has do not count")
        for number in 0..<4 { stand.withdraw(try exposure("n\(number)", of: "many")) }
        #expect(try isFull(stand, of: "many"))
        #expect(try !isFull(stand, for: "n0", of: "many"), "a name that comes back adds nothing")
        #expect(try !isFull(stand, of: "few"))
        // It holds one of the names again.
        stand.publish(try exposure("n0", of: "many")) { _ in }
        #expect(try !isFull(stand, of: "many"))
        registrar.answersLater = false
        registrar.letGo()
        #expect(try !isFull(stand, of: "many"))
        stand.withdraw(try exposure("n0", of: "many"))
        #expect(stand.pendingCount == 0)
    }

    @Test("identities with the same payer share its limit and its turns")
    func onePayer() throws {
        let stand = QueueFixture(limits: Self.limits(perAgent: 4, total: 16))
        let registrar = stand.registrar
        (registrar.resetKeepsNames, registrar.maxAtOnce) = (false, 1)
        stand.start()
        registrar.answersLater = true
        for number in 0..<4 {
            let exposure = try exposure("n\(number)", of: "id-\(number)", payer: "10.0.0.1")
            stand.publish(exposure) { _ in }
        }
        stand.publish(try exposure("one", of: "few")) { _ in }
        registrar.letGo()
        registrar.letGo()
        #expect(registrar.calls.last == "publish one", "it is its turn after the first of the four")
        registrar.answersLater = false
        registrar.letGo()
        registrar.answersLater = true
        for number in 0..<4 {
            stand.withdraw(try exposure("n\(number)", of: "id-\(number)", payer: "10.0.0.1"))
        }
        #expect(try isFull(stand, of: "10.0.0.1") && !isFull(stand, of: "id-4"))
        registrar.answersLater = false
        registrar.letGo()
        #expect(stand.pendingCount == 0)
    }

    @Test("the fuller the queue, the fewer withdrawals one agent may have")
    func inAll() throws {
        let stand = QueueFixture(limits: Self.limits(perAgent: 8, total: 12))
        let registrar = stand.registrar
        registrar.resetKeepsNames = false
        stand.start()
        registrar.answersLater = true
        func leave(_ count: Int, of identity: String) throws {
            for number in 0..<count {
                stand.publish(try exposure("\(identity)-\(number)", of: identity)) { _ in }
                stand.withdraw(try exposure("\(identity)-\(number)", of: identity))
            }
        }
        try leave(6, of: "a")
        #expect(try isFull(stand, of: "a") && !isFull(stand, of: "b"))
        try leave(3, of: "b")
        #expect(try isFull(stand, of: "b") && !isFull(stand, of: "c"))
        try leave(3, of: "c")
        #expect(try isFull(stand, of: "d"), "no room at all")
        registrar.answersLater = false
        registrar.letGo()
        #expect(try !isFull(stand, of: "a") && stand.pendingCount == 0)
    }

    @Test("withdrawals for an unreachable registrar are bounded: a reset replaces them when it works again")
    func unreachable() throws {
        let stand = QueueFixture(limits: Self.limits(perAgent: 8, total: 100))
        let registrar = stand.registrar
        stand.start()
        stand.publish(try exposure("keeps", port: 7)) { _ in }
        let names = (0..<110).map { "n\($0)" }
        registrar.failing = Set(names.map { "withdraw \($0)" } + ["reset keeps"])
        for (number, name) in names.enumerated() {
            stand.publish(try exposure(name, port: UInt16(10_000 + number % 50))) { _ in }
            stand.withdraw(try exposure(name, port: UInt16(10_000 + number % 50)))
        }
        #expect(stand.pendingCount <= 100)
        #expect(stand.isFailing)
        #expect(try !isFull(stand, of: "x"), "a reset helps")
        #expect(stand.abandoned == [100])
        #expect(stand.leavingPorts(exceptOf: "another") == Set(10_000..<10_050))
        #expect(stand.run { registrar.count("reset keeps") == 1 })
        #expect(stand.leavingPorts(exceptOf: "another") == Set(10_000..<10_050), "nothing was removed yet")
        registrar.failing = []
        #expect(stand.run { registrar.count("reset keeps") == 2 && stand.pendingCount == 0 })
        #expect(stand.leavingPorts(exceptOf: "another").isEmpty)
        #expect(stand.failure == nil)
    }

    @Test("withdrawals queued behind a hanging one are bounded too")
    func hanging() throws {
        let stand = QueueFixture(limits: Self.limits(perAgent: 8, total: 100))
        let registrar = stand.registrar
        registrar.maxAtOnce = 1
        stand.start()
        for number in 0..<210 { stand.publish(try exposure("n\(number)")) { _ in } }
        registrar.answersLater = true
        for number in 0..<210 { stand.withdraw(try exposure("n\(number)")) }
        #expect(stand.pendingCount <= 101)
        #expect(registrar.calls.filter { !$0.hasPrefix("publish") } == ["reset", "withdraw n0"])
        registrar.answersLater = false
        registrar.letGo()
        #expect(stand.run { registrar.count("reset") == 2 && stand.pendingCount == 0 })
        #expect(stand.leavingPorts(exceptOf: "another").isEmpty)
    }

    @Test("running withdrawals are never abandoned, and not logged")
    func underWay() throws {
        let stand = QueueFixture(limits: Self.limits(perAgent: 8, total: 100))
        let registrar = stand.registrar
        stand.start()
        for number in 0..<300 { stand.publish(try exposure("n\(number)")) { _ in } }
        registrar.answersLater = true
        for number in 0..<300 { stand.withdraw(try exposure("n\(number)")) }
        #expect(stand.pendingCount == 300)
        #expect(stand.abandoned.isEmpty)
        registrar.answersLater = false
        registrar.letGo()
        #expect(stand.pendingCount == 0 && registrar.count("reset") == 1)
    }
}
