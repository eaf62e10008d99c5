import Gateway
import Modules
import Reactor
import Testing
import Wire

@Suite("How registrars are driven", .serialized, .timeLimit(.minutes(1)))
struct RegistrarDriverTests {
    private func stand() throws -> (DriverStand, FakeRegistrar, RegistrarDriver) {
        let stand = try DriverStand()
        return (stand, stand.registrar, stand.driver)
    }

    private func exposure(_ name: String, port: UInt16 = 4_711) throws -> PublicExposure {
        try DriverStand.exposure(name, port: port)
    }

    @Test("a withdrawal waits for the publication that is under way, and is not overtaken by it")
    func order() throws {
        let (stand, registrar, driver) = try self.stand()
        defer { stand.close() }
        driver.start()
        registrar.answersLater = true
        driver.publish(try exposure("one")) { _ in Issue.record("nobody waits for it any more") }
        driver.withdraw(try exposure("one"))
        #expect(registrar.calls.suffix(1) == ["publish one"])
        registrar.letGo()
        #expect(registrar.calls.suffix(1) == ["withdraw one"])
        // The last wish counts.
        var published = 0
        driver.publish(try exposure("one")) { _ in Issue.record("nobody waits for it any more") }
        driver.withdraw(try exposure("one"))
        driver.publish(try exposure("one", port: 1)) { _ in published += 1 }
        registrar.letGo()
        #expect(registrar.calls.suffix(2) == ["withdraw one", "publish one"])
        registrar.letGo()
        #expect(published == 1 && driver.pendingCount == 0)
        registrar.answersLater = false
    }

    @Test("no more are under way than the registrar bears, and the others follow in their order")
    func atOnce() throws {
        let (stand, registrar, driver) = try self.stand()
        defer { stand.close() }
        registrar.mostAtOnce = 2
        registrar.resetPeriod = 60_000
        driver.start()
        registrar.answersLater = true
        for name in ["a", "b", "c", "d", "e"] { driver.publish(try exposure(name)) { _ in } }
        #expect(registrar.calls.dropFirst() == ["publish a", "publish b"])
        // One that waits is not begun when nobody wants it any more.
        driver.withdraw(try exposure("d"))
        driver.withdraw(try exposure("a"))
        registrar.letGo()
        #expect(registrar.calls.suffix(2) == ["publish c", "publish e"])
        driver.reconcile()
        registrar.letGo()
        #expect(registrar.calls.last == "reset b c e")
        registrar.letGo()
        #expect(registrar.calls.last == "withdraw a")
        registrar.letGo()
        #expect(driver.pendingCount == 0)
        registrar.answersLater = false
    }

    @Test("a name that has waited for a minute is given up, as others may hang")
    func patience() throws {
        let (stand, registrar, driver) = try self.stand()
        defer { stand.close() }
        registrar.mostAtOnce = 1
        driver.start()
        registrar.answersLater = true
        var told: [String] = []
        for name in ["a", "b", "c"] { driver.publish(try exposure(name)) { told.append("\(name) \($0 ?? "")") } }
        driver.withdraw(try exposure("c"))
        driver.tick(now: stand.loop.now + 59_999)
        #expect(told.isEmpty && driver.pendingCount == 2)
        driver.tick(now: stand.loop.now + 60_000)
        #expect(told == ["b others are published first"])
        registrar.letGo()
        #expect(driver.pendingCount == 0 && registrar.calls == ["reset", "publish a"])
        registrar.answersLater = false
    }

    @Test("whoever waits has the turn before one that has just been served")
    func turns() throws {
        let (stand, registrar, driver) = try self.stand()
        defer { stand.close() }
        registrar.mostAtOnce = 1
        driver.start()
        registrar.answersLater = true
        driver.publish(try exposure("a")) { _ in }
        driver.publish(try exposure("b")) { _ in }
        driver.withdraw(try exposure("a"))
        registrar.letGo()
        #expect(registrar.calls.last == "publish b")
        registrar.letGo()
        #expect(registrar.calls.last == "withdraw a")
        registrar.letGo()
        registrar.answersLater = false
    }

    @Test("a name that is withdrawn during a reset, which keeps it, is not gone with the reset")
    func leavingDuringReset() throws {
        let (stand, registrar, driver) = try self.stand()
        defer { stand.close() }
        registrar.resetPeriod = 60_000
        driver.start()
        driver.publish(try exposure("one")) { _ in }
        registrar.answersLater = true
        driver.reconcile()
        driver.withdraw(try exposure("one"))
        registrar.letGo()
        #expect(registrar.calls.last == "withdraw one" && driver.leavingPorts(exceptOf: "another") == [4_711])
        registrar.letGo()
        #expect(driver.leavingPorts(exceptOf: "another").isEmpty)
        registrar.answersLater = false
    }

    @Test("at the end a publication that hangs does not keep its name from being withdrawn")
    func endOfOneThatHangs() throws {
        let (stand, registrar, driver) = try self.stand()
        driver.start()
        registrar.answersLater = true
        driver.publish(try exposure("one")) { _ in }
        driver.withdraw(try exposure("one"))
        #expect(registrar.calls.last == "publish one")
        registrar.answersLater = false
        stand.close()
        #expect(registrar.calls.last == "withdraw one")
    }

    @Test("a name's place is free when it is withdrawn everywhere or leads elsewhere, not before")
    func leaving() throws {
        let (stand, registrar, driver) = try self.stand()
        defer { stand.close() }
        driver.start()
        var leaving: Set<UInt16> { driver.leavingPorts(exceptOf: "another") }
        driver.publish(try exposure("one")) { _ in }
        #expect(leaving.isEmpty)
        registrar.failing = ["withdraw one"]
        driver.withdraw(try exposure("one"))
        #expect(stand.loop.run { registrar.count("withdraw one") == 2 })
        #expect(leaving == [4_711])
        #expect(driver.leavingPorts(exceptOf: "x").isEmpty, "its own agent may have it")
        registrar.answersLater = true
        driver.publish(try exposure("one", port: 1)) { _ in }
        #expect(leaving == [4_711])
        registrar.letGo()
        #expect(leaving.isEmpty)
        registrar.failing = []
        driver.withdraw(try exposure("one", port: 1))
        #expect(leaving == [1])
        registrar.letGo()
        #expect(leaving.isEmpty)
        // Under way when the name was withdrawn: it leads to the old place.
        driver.publish(try exposure("two")) { _ in }
        driver.withdraw(try exposure("two"))
        registrar.letGo()
        #expect(leaving == [4_711])
        registrar.letGo()
        #expect(leaving.isEmpty)
        registrar.answersLater = false
    }

    @Test("a reset that fails is tried again and keeps what was published meanwhile")
    func resetRecovers() throws {
        let (stand, registrar, driver) = try self.stand()
        defer { stand.close() }
        registrar.failing = ["reset", "reset one"]
        driver.start()
        var failures: [String?] = []
        driver.publish(try exposure("one")) { failures.append($0) }
        #expect(failures == [nil])
        #expect(driver.failure?.contains("clean up after a former run") == true)
        registrar.failing = ["reset"]
        #expect(stand.loop.run { driver.failure == nil })
        #expect(registrar.calls == ["reset", "publish one", "reset one"])
        #expect(stand.log.lines.contains("the registrar fake works again"))
    }

    @Test("what a reset finds missing is published again until it is done")
    func publishedAgain() throws {
        let (stand, registrar, driver) = try self.stand()
        defer { stand.close() }
        registrar.resetPeriod = 10
        driver.start()
        for name in ["one", "two"] { driver.publish(try exposure(name)) { #expect($0 == nil) } }
        registrar.missing = ["two"]
        registrar.failing = ["publish two"]
        #expect(stand.loop.run { registrar.count("publish two") >= 3 })
        #expect(driver.failure?.contains("cannot publish 'two'") == true)
        registrar.failing = []
        #expect(stand.loop.run { driver.failure == nil })
        #expect(registrar.count("publish one") == 1)
        #expect(registrar.count("withdraw two") == 0)
        registrar.missing = []
        driver.withdraw(try exposure("one"))
        #expect(registrar.calls.last == "withdraw one")
        #expect(stand.loop.run { registrar.calls.last == "reset two" })
    }

    @Test("a reset that the operator asks for has nothing beside it")
    func alone() throws {
        let (stand, registrar, driver) = try self.stand()
        defer { stand.close() }
        driver.start()
        driver.reconcile()
        #expect(registrar.calls == ["reset"], "nobody undoes what this one has done")
        registrar.resetPeriod = 60_000
        registrar.answersLater = true
        driver.publish(try exposure("one")) { _ in }
        driver.reconcile()
        driver.withdraw(try exposure("one"))
        driver.publish(try exposure("two")) { _ in }
        #expect(registrar.calls == ["reset", "publish one"])
        registrar.letGo()
        #expect(registrar.calls.last == "reset two")
        registrar.missing = ["two"]
        #expect(driver.pendingCount == 2)
        registrar.letGo()
        #expect(registrar.calls.suffix(2).sorted() == ["publish two", "withdraw one"])
        registrar.answersLater = false
        registrar.letGo()
        #expect(driver.pendingCount == 0)
    }

    @Test("what is withdrawn during a reset is taken back at the end")
    func endDuringReset() throws {
        let (stand, registrar, driver) = try self.stand()
        registrar.resetPeriod = 60_000
        driver.start()
        driver.publish(try exposure("one")) { _ in }
        registrar.answersLater = true
        driver.reconcile()
        driver.withdraw(try exposure("one"))
        #expect(registrar.calls.last == "reset one")
        registrar.answersLater = false
        stand.close()
        #expect(registrar.calls.last == "withdraw one")
    }

    @Test("a failure stays until the same is done, whatever else succeeds")
    func failures() throws {
        let (stand, registrar, driver) = try self.stand()
        defer { stand.close() }
        driver.start()
        registrar.failing = ["publish one"]
        var told: [String?] = []
        driver.publish(try exposure("one")) { told.append($0) }
        #expect(stand.loop.run { !told.isEmpty })
        #expect(told == ["is broken"])
        #expect(registrar.calls.last == "withdraw one")
        #expect(driver.failure?.contains("cannot publish 'one'") == true)
        // A name that nobody wants any more says nothing about the present.
        driver.publish(try exposure("two")) { #expect($0 == nil) }
        #expect(driver.failure == nil)
        // One that is wanted does.
        driver.publish(try exposure("one")) { _ in }
        driver.publish(try exposure("three")) { #expect($0 == nil) }
        driver.withdraw(try exposure("two"))
        #expect(driver.failure?.contains("cannot publish 'one'") == true)
        registrar.failing = []
        driver.publish(try exposure("one")) { #expect($0 == nil) }
        #expect(driver.failure == nil)
    }

    @Test("of requests that wait for a reset the newest of each name counts")
    func held() throws {
        let (stand, registrar, driver) = try self.stand()
        defer { stand.close() }
        registrar.answersLater = true
        driver.start()
        for _ in 0..<1_000 {
            driver.publish(try exposure("one")) { _ in Issue.record("it was replaced") }
            driver.withdraw(try exposure("one"))
            driver.publish(try exposure("two")) { _ in }
        }
        #expect(driver.pendingCount == 1)
        registrar.letGo()
        #expect(registrar.calls == ["reset", "publish two"])
        registrar.letGo()
        #expect(driver.pendingCount == 0)
        registrar.answersLater = false
    }
}
