import Journal
import Logging
import Metrics
import Modules
import Reactor
import TestSupport
import Testing

/// Decisions of the queue, carried out on a loop.
@Suite("RegistrarDriver", .serialized, .timeLimit(.minutes(1)))
struct RegistrarDriverTests {
    private final class Stand {
        let loop: EventLoop
        let registrar = FakeRegistrar()
        let driver: RegistrarDriver
        let log = LogLines()

        init(limits: WithdrawalLimits = WithdrawalLimits()) throws {
            self.loop = try EventLoop()
            self.driver = RegistrarDriver(
                loop: self.loop, registrar: self.registrar, limits: limits,
                log: PeerLog(self.log.logger, loop: self.loop))
        }

        func close() {
            self.driver.close()
            self.loop.run()
            self.loop.close()
            #expect(self.registrar.closes == 1)
        }
    }

    @Test("an answer may arrive at once or later")
    func answers() throws {
        let stand = try Stand()
        defer { stand.close() }
        stand.driver.start()
        var told: [String?] = []
        stand.driver.publish(try QueueFixture.exposure("one")) { told.append($0) }
        #expect(told == [nil])
        stand.registrar.answersLater = true
        stand.driver.publish(try QueueFixture.exposure("two")) { told.append($0) }
        stand.driver.publish(try QueueFixture.exposure("three")) { _ in Issue.record("the name was withdrawn") }
        stand.driver.withdraw(try QueueFixture.exposure("three"))
        #expect(told == [nil])
        stand.registrar.letGo()
        #expect(told == [nil, nil])
        stand.registrar.answersLater = false
        stand.registrar.letGo()
        #expect(stand.driver.pendingCount == 0)
        #expect(stand.driver.figures.duration.count == 4 && stand.driver.figures.failures.value == 0)
    }

    @Test("a failed action is retried, and logged once")
    func again() throws {
        let stand = try Stand()
        defer { stand.close() }
        stand.driver.start()
        stand.registrar.failing = ["publish one"]
        var told: [String?] = []
        stand.driver.publish(try QueueFixture.exposure("one")) { told.append($0) }
        #expect(stand.driver.isFailing)
        #expect(stand.loop.run { stand.registrar.count("publish one") == 2 })
        stand.registrar.failing = []
        #expect(stand.loop.run { told == [nil] })
        #expect(!stand.driver.isFailing && stand.driver.figures.failures.value == 2)
        #expect(stand.log.lines(at: .error).count { $0.contains("cannot publish 'one': is broken") } == 1)
        #expect(stand.log.lines(at: .notice) == ["registrar fake works again"])
    }

    @Test("on close, a hanging publication is cancelled, and its name is withdrawn")
    func endOfOneThatHangs() throws {
        let stand = try Stand()
        stand.driver.start()
        stand.registrar.answersLater = true
        stand.driver.publish(try QueueFixture.exposure("one")) { _ in Issue.record("the name was withdrawn") }
        stand.driver.withdraw(try QueueFixture.exposure("one"))
        stand.registrar.answersLater = false
        stand.close()
        #expect(stand.registrar.calls == ["reset", "publish one", "withdraw one"])
        stand.registrar.letGo()
        #expect(stand.driver.figures.duration.count == 1, "an answer that comes later is not heard")
    }

    @Test("an agent that repeatedly abandons names does not flood the log")
    func lines() throws {
        var limits = WithdrawalLimits()
        (limits.perAgent, limits.total) = (8, 2)
        let stand = try Stand(limits: limits)
        defer { stand.close() }
        stand.driver.start()
        let names = (0..<400).map { "n\($0)" }
        stand.registrar.failing = Set(names.map { "withdraw \($0)" })
        let began = ContinuousClock.now
        for name in names {
            stand.driver.publish(try QueueFixture.exposure(name)) { _ in }
            stand.driver.withdraw(try QueueFixture.exposure(name))
        }
        // 32 lines at once, and two more for each second that the loop took.
        let seconds = Int((ContinuousClock.now - began).components.seconds) + 1
        #expect(stand.log.lines.count { $0.contains("a reset removes them") } <= 32 + 2 * seconds)
        #expect(stand.driver.figures.abandonments.value > 100)
        stand.registrar.failing = []
        #expect(stand.loop.run { stand.driver.pendingCount == 0 })
    }
}
