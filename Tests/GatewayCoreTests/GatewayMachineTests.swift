import GatewayCore
import Testing
import Wire

private let alice = AgentIdentity(id: "alice")
private let bob = AgentIdentity(id: "bob")

@Suite("The gateway's rules for links and names")
struct GatewayMachineTests {
    private let example: Name

    init() throws { self.example = try #require(Name("example")) }

    // MARK: - From REGISTER to the registrars

    @Test("a name is authorized, opened, published and granted, in this order")
    func wholeWay() {
        let stand = Stand()
        stand.login(1, alice)
        stand.register(1, 7, "Example")
        #expect(stand.effects() == [.ask(1, number: 7, self.example, port: 0)])
        stand.authorize(1, 7, ports: [30_000...30_010])
        let effects = stand.effects()
        guard case .open(let id, let request)? = effects.first, effects.count == 1 else {
            Issue.record("\(effects)")
            return
        }
        #expect(request.wanted == 0 && request.kept == nil && request.allowed == [30_000...30_010])
        stand.machine.opened(id, port: 30_001)
        #expect(stand.effects() == [.savePorts, .attach(id, 1, number: 7), .publish(id)])
        stand.machine.published(id, failure: nil)
        #expect(stand.effects() == [.grant(id, 1, number: 7)])
        stand.machine.unregister(1, number: 7)
        #expect(stand.effects() == [.withdraw(id)] && stand.machine.nameCount == 0)
    }

    @Test("with probes, a name is published when its backend answers over its current link")
    func probes() throws {
        let stand = Stand { $0.probesBackends = true }
        stand.login(1, alice, run: 1)
        stand.register(1, 7, "example")
        stand.authorize(1, 7)
        guard case .open(let id, _)? = stand.effects().last else { throw CancellationError() }
        stand.machine.opened(id, port: 30_001)
        #expect(stand.effects().last == .probe(id, 1))
        stand.login(2, alice, run: 1)
        stand.register(2, 8, "example")
        stand.authorize(2, 8)
        #expect(
            stand.acts().filter { if case .end = $0 { false } else { true } }.suffix(2) == [
                .probe(id, 2), .lost(1, self.example, .replaced),
            ])
        stand.machine.probed(id, over: 1)
        #expect(stand.effects() == [])
        stand.machine.probed(id, over: 2)
        #expect(stand.effects() == [.publish(id)])
    }

    @Test("a faulty REGISTER is refused, but a number in use ends the link")
    func refusals() {
        let stand = Stand()
        stand.login(1, alice)
        func code(_ effects: [GatewayMachine.Effect]) -> ErrorCode? {
            if case .refuse(1, number: 3, let refusal)? = effects.last { refusal.code } else { nil }
        }
        stand.register(1, 3, "no_name")
        #expect(code(stand.effects()) == .nameInvalid)
        stand.register(1, 3, "example", kind: Register.Kind(rawValue: 77))
        #expect(code(stand.effects()) == .kindNotSupported)
        stand.register(1, 3, "example")
        stand.machine.refused(1, number: 3, .nameNotAllowed, reason: "not in its patterns")
        #expect(code(stand.effects()) == .nameNotAllowed)
        stand.register(1, 3, "example", port: 50)
        stand.authorize(1, 3)
        #expect(code(stand.effects()) == .portNotAllowed, "a port of the system's")
        stand.register(1, 3, "example", port: 5_000)
        stand.authorize(1, 3, ports: [6_000...6_001])
        #expect(code(stand.effects()) == .portNotAllowed)
        stand.isFull = true
        stand.register(1, 3, "example")
        stand.authorize(1, 3)
        let full = stand.effects()
        #expect(code(full) == .overloaded && full.contains(.hit(.withdrawals)))
        stand.isFull = false
        stand.register(1, 3, "example")
        _ = stand.effects()
        stand.register(1, 3, "another")
        guard case .end(1, let refusal, retryAfterSeconds: 0)? = stand.effects().last else {
            Issue.record("the link was not ended")
            return
        }
        #expect(refusal.code == .protocolViolation)
    }

    @Test("a name is free again if its listener or registrar fails")
    func failures() throws {
        let stand = Stand()
        stand.login(1, alice)
        stand.register(1, 3, "example")
        stand.authorize(1, 3)
        guard case .open(let id, _)? = stand.effects().last else { throw CancellationError() }
        stand.machine.notOpened(id, Refusal(code: .portTaken, text: "taken"))
        #expect(stand.acts() == [.refuse(1, number: 3, Refusal(code: .portTaken, text: "taken"))])
        #expect(stand.machine.nameCount == 0)
        stand.register(1, 3, "example")
        stand.authorize(1, 3)
        guard case .open(let next, _)? = stand.effects().last else { throw CancellationError() }
        stand.machine.opened(next, port: 30_001)
        _ = stand.effects()
        stand.machine.published(next, failure: "not now")
        #expect(
            stand.effects() == [
                .refuse(1, number: 3, Refusal(code: .registrarFailed, text: "not now")), .withdraw(next),
            ])
        #expect(stand.machine.nameCount == 0)
    }

    @Test("an agent that leaves while its name is being authorized or opened leaves nothing behind")
    func leavesEarly() throws {
        let stand = Stand()
        stand.login(1, alice)
        stand.register(1, 3, "example")
        stand.register(1, 4, "other")
        stand.authorize(1, 4)
        guard case .open(let id, _)? = stand.effects().last else { throw CancellationError() }
        stand.machine.linkEnded(1)
        #expect(stand.effects() == [.cancelQuestion(1, number: 3)])
        stand.machine.opened(id, port: 30_001)
        #expect(stand.effects() == [.withdraw(id)])
        #expect(stand.machine.nameCount == 0)
    }

    @Test("registrations are limited per payer")
    func haste() {
        let stand = Stand { $0.namesPerAgent = 1 }
        stand.login(1, alice)
        for number in 0..<4 { stand.register(1, UInt16(number), "n\(number)") }
        _ = stand.effects()
        stand.register(1, 9, "one-more")
        let effects = stand.acts()
        #expect(effects.first == .hit(.registrations))
        guard case .refuse(1, number: 9, let refusal)? = effects.last else {
            Issue.record("\(effects)")
            return
        }
        #expect(refusal.code == .overloaded)
    }

    // MARK: - Takeovers

    @Test(
        "a name taken over from another program reports where that is, with the same or another port",
        arguments: [0, 30_009])
    func takeoverByAnotherProgram(port: UInt16) throws {
        let stand = Stand()
        stand.login(1, alice, run: 1)
        let first = try #require(stand.have(1, 3, "example"))
        stand.login(2, alice, run: 2)
        stand.register(2, 5, "example", port: port)
        stand.authorize(2, 5)
        let effects = stand.acts()
        // With another port it is another exposure.
        let taken = port == 0 ? first : ExposureID(number: first.number + 1)
        let note = try #require(effects.firstIndex(of: .takenOver(taken, from: 1)))
        let next = effects.firstIndex {
            switch $0 {
            case .grant(taken, 2, number: 5), .open(taken, _): true
            default: false
            }
        }
        #expect(try note < #require(next), "it is known before the grant")
    }

    @Test("a newer link of the same agent takes a published name over unchanged, and the older link ends")
    func takeover() throws {
        let stand = Stand()
        stand.login(1, alice, run: 1)
        let id = try #require(stand.have(1, 3, "example"))
        stand.login(2, alice, run: 1)
        stand.register(2, 5, "example")
        stand.authorize(2, 5)
        let text = "a newer program of the same agent took over"
        #expect(
            stand.acts() == [
                .ask(2, number: 5, self.example, port: 0), .attach(id, 2, number: 5), .grant(id, 2, number: 5),
                .lost(1, self.example, .replaced),
                .end(1, Refusal(code: .replaced, text: text), retryAfterSeconds: 0),
            ])
        stand.machine.linkEnded(1)
        #expect(stand.effects() == [], "the name is not the older link's any more")
        stand.machine.linkEnded(2)
        #expect(stand.effects() == [.withdraw(id)])
    }

    @Test("a link that loses a name is not ended if it has other names or drains")
    func losers() throws {
        let stand = Stand()
        stand.login(1, alice, run: 1)
        _ = try #require(stand.have(1, 3, "example"))
        _ = try #require(stand.have(1, 4, "other"))
        stand.login(2, alice, run: 1)
        stand.register(2, 5, "example")
        stand.authorize(2, 5)
        let effects = stand.acts()
        #expect(effects.contains { if case .takeBack(1, number: 3, _) = $0 { true } else { false } })
        stand.machine.linkIsDraining(1)
        stand.register(2, 6, "other")
        stand.authorize(2, 6)
        let told = stand.acts().contains { effect in
            switch effect {
            case .end(1, _, _), .takeBack(1, _, _): true
            default: false
            }
        }
        #expect(!told, "its streams finish")
    }

    @Test("a newer link takes over a name that is being published, and gets the answer")
    func takeoverWhilePublishing() throws {
        let stand = Stand { $0.probesBackends = true }
        // This link cannot probe.
        let first = GatewayMachine.Login(identity: alice, payer: "alice", run: 1, canProbe: false)
        #expect(stand.refusal(1, first, maxLinks: 2) == nil)
        stand.register(1, 3, "example")
        stand.authorize(1, 3)
        guard case .open(let id, _)? = stand.effects().last else { throw CancellationError() }
        stand.machine.opened(id, port: 30_001)
        #expect(stand.effects().last == .publish(id))
        stand.login(2, alice, run: 1)
        stand.register(2, 5, "example")
        stand.authorize(2, 5)
        #expect(stand.acts().dropFirst().first == .attach(id, 2, number: 5))
        stand.machine.published(id, failure: "not now")
        #expect(
            stand.effects() == [
                .refuse(2, number: 5, Refusal(code: .registrarFailed, text: "not now")), .withdraw(id),
            ])
    }

    @Test("programs that repeatedly take a name from each other are refused with a conflict")
    func conflict() throws {
        let stand = Stand()
        var codes: [ErrorCode] = []
        for link in 1...4 as ClosedRange<LinkID> {
            stand.login(link, alice, run: link)
            stand.register(link, 1, "example")
            stand.authorize(link, 1)
            for effect in stand.effects() {
                if case .open(let id, _) = effect { stand.machine.opened(id, port: 30_001) }
                if case .lost(_, _, let code) = effect { codes.append(code) }
            }
        }
        #expect(codes == [.replaced, .replaced, .conflict])
    }

    @Test("a draining link gets none of the names that it has requested")
    func goodbye() throws {
        let stand = Stand()
        stand.login(1, alice, run: 1)
        stand.register(1, 3, "example")
        _ = stand.effects()
        stand.machine.linkIsDraining(1)
        #expect(stand.effects() == [.cancelQuestion(1, number: 3)])
        stand.authorize(1, 3)
        #expect(stand.effects() == [] && stand.machine.nameCount == 0)
    }

    @Test("a takeover with another port withdraws the name and opens it again")
    func takeoverWithPort() throws {
        let stand = Stand()
        stand.login(1, alice, run: 1)
        let old = try #require(stand.have(1, 3, "example"))
        stand.login(2, alice, run: 1)
        let new = try #require(stand.have(2, 5, "example", port: 31_000))
        #expect(new != old && stand.machine.link(of: old) == nil && stand.machine.link(of: new) == 2)
    }

    @Test("another agent gets neither a name nor a port of a connected agent")
    func others() throws {
        let stand = Stand()
        stand.login(1, alice)
        _ = try #require(stand.have(1, 3, "example", port: 31_000))
        stand.login(2, bob)
        stand.register(2, 1, "example")
        stand.authorize(2, 1)
        stand.machine.unregister(1, number: 3)
        stand.register(2, 2, "other", port: 31_000)
        stand.authorize(2, 2)
        let codes = stand.effects().compactMap { effect in
            if case .refuse(2, _, let refusal) = effect { refusal.code } else { nil }
        }
        #expect(codes == [.nameTaken, .portNotAllowed])
        stand.machine.linkEnded(1)
        #expect(stand.have(2, 3, "other", port: 31_000) != nil, "an absent agent keeps no port")
    }

    // MARK: - Links

    @Test("a program's former link is closed for its new one, and another program needs a free slot")
    func links() {
        let stand = Stand()
        stand.login(1, alice, run: 1, maxLinks: 1)
        stand.login(2, alice, run: 1, maxLinks: 1)
        #expect(stand.effects() == [])
        stand.login(3, alice, run: 1, maxLinks: 1)
        #expect(stand.effects() == [.close(1)])
        let other = GatewayMachine.Login(identity: alice, payer: "alice", run: 2)
        #expect(stand.refusal(4, other, maxLinks: 1) == .tooManyLinks)
        stand.machine.linkIsEnding(2)
        stand.machine.linkIsEnding(3)
        #expect(stand.refusal(4, other, maxLinks: 1) == nil, "links that are being closed do not count")
        stand.machine.drain()
        #expect(stand.refusal(5, other, maxLinks: 9) == .drain)
    }

    @Test("the gateway's own limits on agents and names apply")
    func bounds() throws {
        let stand = Stand {
            $0.agents = 1
            $0.names = 2
        }
        stand.login(1, alice)
        let other = GatewayMachine.Login(identity: bob, payer: "bob", run: 2)
        #expect(stand.refusal(2, other, maxLinks: 1) == .tooManyLinks)
        for name in ["a", "b"] { #expect(stand.have(1, UInt16(name.utf8.first ?? 0), name) != nil) }
        #expect(stand.have(1, 3, "c") == nil)
    }

    // MARK: - Rights that change

    @Test("links and names above new limits end, the newest first")
    func fewer() throws {
        let stand = Stand()
        stand.login(1, alice, run: 1)
        stand.login(2, alice, run: 2)
        let kept = try #require(stand.have(1, 1, "a"))
        let lost = try #require(stand.have(1, 2, "b"))
        let gone = try #require(stand.have(2, 1, "c"))
        stand.machine.changed(alice, maxLinks: 1, maxNames: 1)
        let effects = stand.acts()
        #expect(effects.contains(.withdraw(lost)) && effects.contains(.withdraw(gone)))
        #expect(effects.contains(.cutStreams(1, number: 2)) && !effects.contains(.withdraw(kept)))
        #expect(effects.contains { if case .end(2, _, retryAfterSeconds: 5) = $0 { true } else { false } })
        #expect(stand.have(1, 3, "d") == nil, "the limit holds for new names")
    }

    @Test("a withdrawn right ends the name and its streams, or the whole link")
    func revocations() throws {
        let stand = Stand()
        stand.login(1, alice)
        let first = try #require(stand.have(1, 1, "a", port: 31_000))
        let second = try #require(stand.have(1, 2, "b"))
        stand.machine.confirmed(first, ports: [31_000...31_000])
        #expect(stand.effects() == [])
        stand.machine.confirmed(first, ports: [32_000...32_000])
        #expect(stand.acts().suffix(2) == [.withdraw(first), .cutStreams(1, number: 1)])
        stand.machine.revoked(1, "the agent has expired")
        let effects = stand.acts()
        #expect(effects.first == .withdraw(second))
        #expect(
            effects.last
                == .end(
                    1, Refusal(code: .revoked, text: "access revoked: the agent has expired"),
                    retryAfterSeconds: 0))
    }
}
