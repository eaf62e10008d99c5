import AgentCore
import Testing
import Wire

private func machine() throws -> AgentMachine {
    AgentMachine(wantedNames: [WantedName(name: try #require(Name("example")), port: 0)], once: false)
}

private func up(_ machine: inout AgentMachine) {
    _ = machine.started()
    machine.connected()
    _ = machine.welcomed(Welcome(linkID: 1, maximumNames: 16), now: 0)
}

@Suite("AgentMachine between two connections")
struct DetachedLinkTests {
    private func detached(_ machine: inout AgentMachine, at now: UInt64 = 1_000) -> AgentMachine.Action {
        up(&machine)
        _ = machine.registered(Registered(exposure: 0, code: .none, port: 7, text: "h:7"), now: 0)
        return machine.linkDetached(window: 60_000, now: now, random: 499)
    }

    @Test("waits at most half a second after a break, and keeps the names")
    func detaches() throws {
        var machine = try machine()
        #expect(self.detached(&machine) == .wait(499))
        #expect(machine.nextDeadline == 1_499)
        #expect(machine.deadlineReached(now: 1_499) == [.dial])
        machine.connected()
        #expect(machine.resumed(now: 2_000) == [])
        #expect(machine.progress == .connected(names: 1))
        var other = try self.fresh()
        up(&other)
        guard case .wait(let longest) = other.linkDetached(window: 60_000, now: 0, random: 500) else { return }
        #expect(longest == 500)
    }

    private func fresh() throws -> AgentMachine { try machine() }

    @Test("tries again within two seconds while a link waits")
    func hurries() throws {
        var machine = try machine()
        _ = self.detached(&machine)
        for _ in 0..<6 {
            _ = machine.deadlineReached(now: .max)
            guard case .wait(let wait) = machine.dialFailed("no", now: 2_000, random: .max - 1) else {
                Issue.record("no wait")
                return
            }
            #expect(wait <= 2_000)
        }
    }

    @Test("registers the names again if the link is over when it logs in")
    func forgets() throws {
        var machine = try machine()
        _ = self.detached(&machine)
        _ = machine.deadlineReached(now: .max)
        machine.connected()
        machine.linkForgotten()
        guard case .register(let requests)? = machine.welcomed(Welcome(linkID: 2, maximumNames: 9), now: 3_000).first
        else {
            Issue.record("no request")
            return
        }
        #expect(requests.map(\.name) == ["example"])
    }

    @Test("makes a connection beside one that is stuck, and gives it up when that one moves")
    func stuck() throws {
        var machine = try machine()
        up(&machine)
        #expect(machine.linkStuck(window: 60_000, now: 100) == .dial)
        #expect(machine.linkStuck(window: 60_000, now: 100) == .none)
        // The connection breaks meanwhile: the attempt goes on.
        #expect(machine.linkDetached(window: 60_000, now: 100, random: 0) == .none)
        _ = machine.linkMoves(now: 200)
        #expect(machine.progress == .connected(names: 0))
        #expect(machine.linkMoves(now: 200) == [])
    }

    @Test("accepts answers about names on a connection that seems to be stuck")
    func answersWhileStuck() throws {
        var machine = try machine()
        up(&machine)
        _ = machine.linkStuck(window: 60_000, now: 100)
        guard case .announce = machine.registered(Registered(exposure: 0, code: .none, port: 7, text: "h:7"), now: 200)
        else {
            Issue.record("the answer is ignored")
            return
        }
        _ = machine.linkMoves(now: 300)
        #expect(machine.progress == .connected(names: 1))
    }

    @Test("dials at once when the network has changed, unless the gateway requested the wait")
    func network() throws {
        var machine = try machine()
        _ = self.detached(&machine)
        #expect(machine.networkChanged(now: 1_000) == .dial)
        #expect(machine.networkChanged(now: 1_000) == .none)
        // A network that changes all the time does not void the waits.
        _ = machine.dialFailed("no", now: 1_500, random: .max)
        #expect(machine.networkChanged(now: 1_999) == .none)
        #expect(machine.networkChanged(now: 2_000) == .dial)
        machine.linkForgotten()
        _ = machine.dialFailed("no", now: 3_000, random: .max)
        #expect(machine.networkChanged(now: 11_999) == .none)
        #expect(machine.networkChanged(now: 12_000) == .dial)
        _ = machine.goAway(GoAway(code: .overloaded, retryAfterSeconds: 9), now: 0)
        _ = machine.linkEnded("overloaded", now: 0, random: 0)
        #expect(machine.networkChanged(now: 90_000) == .none)
    }
}
