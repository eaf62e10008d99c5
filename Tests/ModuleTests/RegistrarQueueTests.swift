import Modules
import Testing
import Wire

@Suite("RegistrarQueue")
struct RegistrarQueueTests {
    private let stand = QueueFixture()
    private var registrar: FakeRegistrar { self.stand.registrar }

    private func exposure(_ name: String, port: UInt16 = 4_711) throws -> PublicExposure {
        try QueueFixture.exposure(name, port: port)
    }

    @Test("a withdrawal waits for the publication in progress")
    func order() throws {
        stand.start()
        registrar.answersLater = true
        stand.publish(try exposure("one")) { _ in Issue.record("the request was replaced") }
        stand.withdraw(try exposure("one"))
        #expect(registrar.calls.suffix(1) == ["publish one"])
        registrar.letGo()
        #expect(registrar.calls.suffix(1) == ["withdraw one"])
        // The last request wins.
        var published = 0
        stand.publish(try exposure("one")) { _ in Issue.record("the request was replaced") }
        stand.withdraw(try exposure("one"))
        stand.publish(try exposure("one", port: 1)) { _ in published += 1 }
        registrar.letGo()
        #expect(registrar.calls.suffix(2) == ["withdraw one", "publish one"])
        registrar.letGo()
        #expect(published == 1 && stand.pendingCount == 0)
    }

    @Test("at most as many actions run as the registrar allows, and the others follow in order")
    func atOnce() throws {
        registrar.maxAtOnce = 2
        registrar.resetPeriod = 60_000
        stand.start()
        registrar.answersLater = true
        for name in ["a", "b", "c", "d", "e"] { stand.publish(try exposure(name)) { _ in } }
        #expect(registrar.calls.dropFirst() == ["publish a", "publish b"])
        // A queued publication never starts if its name is withdrawn.
        stand.withdraw(try exposure("d"))
        stand.withdraw(try exposure("a"))
        registrar.letGo()
        #expect(registrar.calls.suffix(2) == ["publish c", "publish e"])
        stand.reconcile()
        registrar.letGo()
        #expect(registrar.calls.last == "reset b c e")
        registrar.letGo()
        #expect(registrar.calls.last == "withdraw a")
        registrar.letGo()
        #expect(stand.pendingCount == 0)
    }

    @Test("a name that has waited for a minute is refused, because other actions may hang")
    func patience() throws {
        registrar.maxAtOnce = 1
        stand.start()
        registrar.answersLater = true
        var told: [String] = []
        for name in ["a", "b", "c"] { stand.publish(try exposure(name)) { told.append("\(name) \($0 ?? "")") } }
        stand.withdraw(try exposure("c"))
        stand.advance(by: 59_999)
        #expect(told.isEmpty && stand.pendingCount == 2)
        stand.advance(by: 1)
        #expect(told == ["b the registrar is busy with other names"])
        registrar.letGo()
        #expect(stand.pendingCount == 0 && registrar.calls == ["reset", "publish a"])
    }

    @Test("a waiting name is served before one that has just been served")
    func turns() throws {
        registrar.maxAtOnce = 1
        stand.start()
        registrar.answersLater = true
        stand.publish(try exposure("a")) { _ in }
        stand.publish(try exposure("b")) { _ in }
        stand.withdraw(try exposure("a"))
        registrar.letGo()
        #expect(registrar.calls.last == "publish b")
        registrar.letGo()
        #expect(registrar.calls.last == "withdraw a")
        registrar.letGo()
    }

    @Test("a name withdrawn during a reset that keeps it is withdrawn after the reset")
    func leavingDuringReset() throws {
        registrar.resetPeriod = 60_000
        stand.start()
        stand.publish(try exposure("one")) { _ in }
        registrar.answersLater = true
        stand.reconcile()
        stand.withdraw(try exposure("one"))
        registrar.letGo()
        #expect(registrar.calls.last == "withdraw one" && stand.leavingPorts(exceptOf: "another") == [4_711])
        registrar.letGo()
        #expect(stand.leavingPorts(exceptOf: "another").isEmpty)
    }

    @Test("on close, a hanging publication does not prevent the withdrawal of its name")
    func endOfOneThatHangs() throws {
        stand.start()
        registrar.answersLater = true
        stand.publish(try exposure("one")) { _ in }
        stand.withdraw(try exposure("one"))
        #expect(registrar.calls.last == "publish one")
        registrar.answersLater = false
        stand.close()
        #expect(registrar.calls.last == "withdraw one")
    }

    @Test("a name's port is free when the name is withdrawn everywhere or has another port, not before")
    func leaving() throws {
        stand.start()
        var leaving: Set<UInt16> { stand.leavingPorts(exceptOf: "another") }
        stand.publish(try exposure("one")) { _ in }
        #expect(leaving.isEmpty)
        registrar.failing = ["withdraw one"]
        stand.withdraw(try exposure("one"))
        #expect(stand.run { registrar.count("withdraw one") == 2 })
        #expect(leaving == [4_711])
        #expect(stand.leavingPorts(exceptOf: "x").isEmpty, "its own agent may have it")
        registrar.answersLater = true
        stand.publish(try exposure("one", port: 1)) { _ in }
        #expect(leaving == [4_711])
        registrar.letGo()
        #expect(leaving.isEmpty)
        registrar.failing = []
        stand.withdraw(try exposure("one", port: 1))
        #expect(leaving == [1])
        registrar.letGo()
        #expect(leaving.isEmpty)
        // The publication was in progress when the name was withdrawn, so it leads to the old port.
        stand.publish(try exposure("two")) { _ in }
        stand.withdraw(try exposure("two"))
        registrar.letGo()
        #expect(leaving == [4_711])
        registrar.letGo()
        #expect(leaving.isEmpty)
    }

    @Test("a failed reset is retried, and keeps the names published since")
    func resetRecovers() throws {
        registrar.failing = ["reset", "reset one"]
        stand.start()
        var failures: [String?] = []
        stand.publish(try exposure("one")) { failures.append($0) }
        #expect(failures == [nil])
        #expect(stand.failure?.contains("clean up after the previous run") == true)
        registrar.failing = ["reset"]
        #expect(stand.run { stand.failure == nil })
        #expect(registrar.calls == ["reset", "publish one", "reset one"])
        #expect(stand.lines.contains("registrar fake works again"))
    }

    @Test("a name that a reset reports missing is published again until that succeeds")
    func publishedAgain() throws {
        registrar.resetPeriod = 10
        stand.start()
        for name in ["one", "two"] { stand.publish(try exposure(name)) { #expect($0 == nil) } }
        registrar.missing = ["two"]
        registrar.failing = ["publish two"]
        #expect(stand.run { registrar.count("publish two") >= 3 })
        #expect(stand.failure?.contains("cannot publish 'two'") == true)
        registrar.failing = []
        #expect(stand.run { stand.failure == nil })
        #expect(registrar.count("publish one") == 1)
        #expect(registrar.count("withdraw two") == 0)
        registrar.missing = []
        stand.withdraw(try exposure("one"))
        #expect(registrar.calls.last == "withdraw one")
        #expect(stand.run { registrar.calls.last == "reset two" })
    }

    @Test("a reset requested by the operator runs alone")
    func alone() throws {
        stand.start()
        stand.reconcile()
        #expect(registrar.calls == ["reset"], "only the reset runs")
        registrar.resetPeriod = 60_000
        registrar.answersLater = true
        stand.publish(try exposure("one")) { _ in }
        stand.reconcile()
        stand.withdraw(try exposure("one"))
        stand.publish(try exposure("two")) { _ in }
        #expect(registrar.calls == ["reset", "publish one"])
        registrar.letGo()
        #expect(registrar.calls.last == "reset", "what is still to be published is not kept")
        #expect(stand.pendingCount == 2)
        registrar.letGo()
        #expect(registrar.calls.suffix(2).sorted() == ["publish two", "withdraw one"])
        registrar.answersLater = false
        registrar.letGo()
        #expect(stand.pendingCount == 0)
    }

    @Test("a name withdrawn during a reset is still withdrawn on close")
    func endDuringReset() throws {
        registrar.resetPeriod = 60_000
        stand.start()
        stand.publish(try exposure("one")) { _ in }
        registrar.answersLater = true
        stand.reconcile()
        stand.withdraw(try exposure("one"))
        #expect(registrar.calls.last == "reset one")
        registrar.answersLater = false
        stand.close()
        #expect(registrar.calls.last == "withdraw one")
    }

    @Test("a failure is reported until the same action succeeds, whatever else succeeds")
    func failures() throws {
        stand.start()
        registrar.failing = ["publish one"]
        var told: [String?] = []
        stand.publish(try exposure("one")) { told.append($0) }
        #expect(stand.run { !told.isEmpty })
        #expect(told == ["is broken"])
        #expect(registrar.calls.last == "withdraw one")
        #expect(stand.failure?.contains("cannot publish 'one'") == true)
        // A failure of a name that is no longer wanted is not a current failure.
        stand.publish(try exposure("two")) { #expect($0 == nil) }
        #expect(stand.failure == nil)
        // A failure of a wanted name is.
        stand.publish(try exposure("one")) { _ in }
        stand.publish(try exposure("three")) { #expect($0 == nil) }
        stand.withdraw(try exposure("two"))
        #expect(stand.failure?.contains("cannot publish 'one'") == true)
        registrar.failing = []
        stand.publish(try exposure("one")) { #expect($0 == nil) }
        #expect(stand.failure == nil)
    }

    @Test("only the newest request of each name waits for a reset")
    func held() throws {
        registrar.answersLater = true
        stand.start()
        for _ in 0..<1_000 {
            stand.publish(try exposure("one")) { _ in Issue.record("it was replaced") }
            stand.withdraw(try exposure("one"))
            stand.publish(try exposure("two")) { _ in }
        }
        #expect(stand.pendingCount == 1)
        registrar.letGo()
        #expect(registrar.calls == ["reset", "publish two"])
        registrar.letGo()
        #expect(stand.pendingCount == 0)
    }
}
