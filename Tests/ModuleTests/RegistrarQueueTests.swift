import Modules
import Testing
import Wire

@Suite("What a registrar has to do, and when")
struct RegistrarQueueTests {
    private let stand = QueueFixture()
    private var registrar: FakeRegistrar { self.stand.registrar }

    private func exposure(_ name: String, port: UInt16 = 4_711) throws -> PublicExposure {
        try QueueFixture.exposure(name, port: port)
    }

    @Test("a withdrawal waits for the publication that is under way, and is not overtaken by it")
    func order() throws {
        stand.start()
        registrar.answersLater = true
        stand.publish(try exposure("one")) { _ in Issue.record("the request was replaced") }
        stand.withdraw(try exposure("one"))
        #expect(registrar.calls.suffix(1) == ["publish one"])
        registrar.letGo()
        #expect(registrar.calls.suffix(1) == ["withdraw one"])
        // The last wish counts.
        var published = 0
        stand.publish(try exposure("one")) { _ in Issue.record("the request was replaced") }
        stand.withdraw(try exposure("one"))
        stand.publish(try exposure("one", port: 1)) { _ in published += 1 }
        registrar.letGo()
        #expect(registrar.calls.suffix(2) == ["withdraw one", "publish one"])
        registrar.letGo()
        #expect(published == 1 && stand.pendingCount == 0)
    }

    @Test("no more run than the registrar allows, and the others follow in their order")
    func atOnce() throws {
        registrar.maxAtOnce = 2
        registrar.resetPeriod = 60_000
        stand.start()
        registrar.answersLater = true
        for name in ["a", "b", "c", "d", "e"] { stand.publish(try exposure(name)) { _ in } }
        #expect(registrar.calls.dropFirst() == ["publish a", "publish b"])
        // One that waits is not begun when nobody wants it any more.
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

    @Test("a name that has waited for a minute is given up, as others may hang")
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

    @Test("whoever waits has the turn before one that has just been served")
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

    @Test("a name that is withdrawn during a reset, which keeps it, is not gone with the reset")
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

    @Test("at the end a publication that hangs does not keep its name from being withdrawn")
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

    @Test("a name's place is free when it is withdrawn everywhere or leads elsewhere, not before")
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
        // Under way when the name was withdrawn: it leads to the old place.
        stand.publish(try exposure("two")) { _ in }
        stand.withdraw(try exposure("two"))
        registrar.letGo()
        #expect(leaving == [4_711])
        registrar.letGo()
        #expect(leaving.isEmpty)
    }

    @Test("a reset that fails is tried again and keeps what was published meanwhile")
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
        #expect(stand.lines.contains("the registrar fake works again"))
    }

    @Test("what a reset finds missing is published again until it is done")
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

    @Test("a reset that the operator asks for runs alone")
    func alone() throws {
        stand.start()
        stand.reconcile()
        #expect(registrar.calls == ["reset"], "nobody undoes what this one has done")
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

    @Test("what is withdrawn during a reset is taken back at the end")
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

    @Test("a failure stays until the same is done, whatever else succeeds")
    func failures() throws {
        stand.start()
        registrar.failing = ["publish one"]
        var told: [String?] = []
        stand.publish(try exposure("one")) { told.append($0) }
        #expect(stand.run { !told.isEmpty })
        #expect(told == ["is broken"])
        #expect(registrar.calls.last == "withdraw one")
        #expect(stand.failure?.contains("cannot publish 'one'") == true)
        // A name that nobody wants any more says nothing about the present.
        stand.publish(try exposure("two")) { #expect($0 == nil) }
        #expect(stand.failure == nil)
        // One that is wanted does.
        stand.publish(try exposure("one")) { _ in }
        stand.publish(try exposure("three")) { #expect($0 == nil) }
        stand.withdraw(try exposure("two"))
        #expect(stand.failure?.contains("cannot publish 'one'") == true)
        registrar.failing = []
        stand.publish(try exposure("one")) { #expect($0 == nil) }
        #expect(stand.failure == nil)
    }

    @Test("of requests that wait for a reset the newest of each name counts")
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
