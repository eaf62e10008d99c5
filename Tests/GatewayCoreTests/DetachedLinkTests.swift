import GatewayCore
import Testing
import Wire

private let alice = AgentIdentity(id: "alice")
private let bob = AgentIdentity(id: "bob")

@Suite("The gateway's rules for links without a connection")
struct DetachedLinkTests {
    @Test("a login of the same program retires its link that has no connection, and its names move")
    func retires() throws {
        let stand = Stand()
        stand.login(1, alice, run: 1)
        let example = try #require(stand.have(1, 0, "example"))
        stand.machine.linkDetached(1, now: 10)
        stand.login(2, alice, run: 1)
        #expect(stand.effects() == [.retire(1)])
        stand.register(2, 5, "example")
        stand.authorize(2, 5)
        #expect(stand.acts().contains(.attach(example, 2, number: 5)))
        stand.machine.linkEnded(1)
        #expect(stand.machine.nameCount == 1)
    }

    @Test("at the limit of links, the one that has waited longest ends")
    func longestWaiting() {
        let stand = Stand()
        for link: LinkID in 1...3 { stand.login(link, alice, run: UInt64(link), maxLinks: 3) }
        stand.machine.linkDetached(3, now: 10)
        stand.machine.linkDetached(1, now: 20)
        stand.login(4, alice, run: 4, maxLinks: 3)
        #expect(stand.effects() == [.close(3)])
        stand.login(5, alice, run: 5, maxLinks: 3)
        #expect(stand.effects() == [.close(1)])
        let login = GatewayMachine.Login(identity: alice, payer: "alice", run: 6)
        #expect(stand.refusal(6, login, maxLinks: 3) == .tooManyLinks)
        // A link that was resumed counts as before.
        stand.machine.linkDetached(2, now: 30)
        stand.machine.linkResumed(2)
        #expect(stand.refusal(6, login, maxLinks: 3) == .tooManyLinks)
    }

    @Test("at the limit of agents, only a link of the same agent makes room")
    func agentLimit() {
        let stand = Stand { $0.agents = 2 }
        stand.login(1, alice, run: 1)
        stand.login(2, bob, run: 2)
        stand.machine.linkDetached(1, now: 0)
        let second = GatewayMachine.Login(identity: bob, payer: "bob", run: 3)
        #expect(stand.refusal(3, second, maxLinks: 9) == .tooManyLinks)
        stand.login(4, alice, run: 4)
        #expect(stand.effects() == [.close(1)])
    }

    @Test("names of a link without a connection go to the agent's next program, and that does not count as a conflict")
    func afterACrash() throws {
        let stand = Stand()
        stand.login(1, alice, run: 1)
        _ = try #require(stand.have(1, 0, "example"))
        for run: UInt64 in 2...6 {
            stand.machine.linkDetached(run - 1, now: run)
            stand.login(run, alice, run: run, maxLinks: 9)
            stand.register(run, 0, "example")
            stand.authorize(run, 0)
            let acts = stand.acts()
            let text = "a newer program of the same agent took over"
            #expect(acts.contains(.end(run - 1, Refusal(code: .replaced, text: text), retryAfterSeconds: 0)))
            #expect(!acts.contains { if case .takenOver = $0 { true } else { false } })
        }
    }
}
