import GatewayCore
import Testing
import Wire

private let alice = AgentIdentity(id: "alice")
private let bob = AgentIdentity(id: "bob")

private func holder(
    _ identity: AgentIdentity, link: UInt64, run: UInt64 = 1, exposure: UInt16 = 0
) -> Registry.Holder {
    Registry.Holder(identity: identity, link: link, run: run, exposure: exposure)
}

@Suite("Registry")
struct RegistryTests {
    private let name: Name

    init() throws { self.name = try #require(Name("example")) }

    @Test("a free name is granted, and is free again after it was given back")
    func grant() {
        var registry = Registry(maximumNamesPerLink: 4)
        #expect(registry.register(self.name, holder(alice, link: 1), now: 0) == .granted)
        #expect(registry.holder(of: self.name)?.link == 1)
        registry.unregister(self.name, link: 1, exposure: 0)
        #expect(registry.register(self.name, holder(bob, link: 2), now: 0) == .granted)
    }

    @Test("another identity can never take over a name")
    func taken() {
        var registry = Registry(maximumNamesPerLink: 4)
        _ = registry.register(self.name, holder(alice, link: 1), now: 0)
        guard case .refused(.nameTaken, _) = registry.register(self.name, holder(bob, link: 2), now: 0) else {
            Issue.record("bob took the name")
            return
        }
        #expect(registry.holder(of: self.name)?.identity == alice)
    }

    @Test("the same identity takes its name over at once, and a late frame of the old link changes nothing")
    func takeover() {
        var registry = Registry(maximumNamesPerLink: 4)
        let old = holder(alice, link: 1)
        _ = registry.register(self.name, old, now: 0)
        #expect(registry.register(self.name, holder(alice, link: 2), now: 1) == .takenOver(from: old, .replaced))
        registry.unregister(self.name, link: 1, exposure: 0)
        #expect(registry.holder(of: self.name)?.link == 2)
    }

    @Test("two programs that displace each other get a conflict; a program that only reconnects does not")
    func conflict() {
        var registry = Registry(maximumNamesPerLink: 4)
        func codes(_ runs: [UInt64], every: UInt64) -> [ErrorCode?] {
            runs.enumerated().map { index, run in
                let wanted = holder(alice, link: UInt64(100 + index), run: run)
                if case .takenOver(_, let code) = registry.register(self.name, wanted, now: UInt64(index) * every) {
                    return code
                }
                return nil
            }
        }
        #expect(codes([1, 2, 1, 2], every: 10_000) == [nil, .replaced, .replaced, .conflict])
        registry = Registry(maximumNamesPerLink: 4)
        #expect(codes([1, 2, 1, 2], every: 61_000) == [nil, .replaced, .replaced, .replaced])
        registry = Registry(maximumNamesPerLink: 4)
        #expect(codes([1, 1, 1, 1, 1], every: 10) == [nil, .replaced, .replaced, .replaced, .replaced])
    }

    @Test("a link has a limited number of names, each with its own exposure number")
    func bounds() throws {
        var registry = Registry(maximumNamesPerLink: 2)
        let names = try ["a", "b", "c"].map { try #require(Name($0)) }
        #expect(registry.register(names[0], holder(alice, link: 1, exposure: 0), now: 0) == .granted)
        guard case .refused(.nameInvalid, _) = registry.register(names[1], holder(alice, link: 1, exposure: 0), now: 0)
        else {
            Issue.record("one number for two names")
            return
        }
        #expect(registry.register(names[1], holder(alice, link: 1, exposure: 1), now: 0) == .granted)
        guard case .refused(.tooManyNames, _) = registry.register(names[2], holder(alice, link: 1, exposure: 2), now: 0)
        else {
            Issue.record("three names")
            return
        }
        #expect(registry.nameCount == 2)
    }

    @Test("names are counted per identity, across takeovers and returns")
    func counts() throws {
        var registry = Registry(maximumNamesPerLink: 2)
        let other = try #require(Name("other"))
        _ = registry.register(self.name, holder(alice, link: 1, exposure: 0), now: 0)
        _ = registry.register(other, holder(alice, link: 1, exposure: 1), now: 0)
        #expect(
            registry.nameCount(of: alice, except: self.name) == 1 && registry.nameCount(of: bob, except: other) == 0)
        // A takeover moves the name to another link and frees its number on the old link.
        _ = registry.register(other, holder(alice, link: 2, exposure: 1), now: 0)
        #expect(registry.nameCount(of: alice, except: self.name) == 1)
        registry.unregister(other, link: 2, exposure: 1)
        #expect(registry.nameCount(of: alice, except: other) == 1)
        #expect(registry.register(other, holder(bob, link: 1, exposure: 1), now: 0) == .granted)
        registry.unregister(self.name, link: 1, exposure: 0)
        #expect(registry.nameCount == 1)
    }

    @Test("the cost of a registration does not depend on the number of names")
    func cost() throws {
        var registry = Registry(maximumNamesPerLink: 4_096)
        let names = try (0..<4_096).map { try #require(Name("n\($0)")) }
        let spent = ContinuousClock().measure {
            for round in 0..<4 {
                for (number, name) in names.enumerated() {
                    let wanted = holder(alice, link: UInt64(round), run: UInt64(round), exposure: UInt16(number))
                    if case .refused = registry.register(name, wanted, now: 0) { Issue.record("\(name) is refused") }
                    #expect(registry.nameCount(of: alice, except: name) < names.count)
                }
            }
        }
        // 16,384 registrations. If each walked over all holders, they would take minutes in a debug build.
        #expect(spent < .seconds(5))
    }
}

@Suite("PortLedger")
struct PortLedgerTests {
    @Test("keeps a port for an identity and name; a port has one owner")
    func ports() throws {
        let one = try #require(Name("one"))
        let two = try #require(Name("two"))
        var ledger = PortLedger(namesPerAgent: 256)
        #expect(ledger.note(30_000, for: one, alice) == true)
        #expect(ledger.note(30_000, for: one, alice) == false)
        #expect(ledger.port(of: one, for: alice) == 30_000)
        #expect(ledger.port(of: one, for: bob) == nil)
        #expect(ledger.note(30_000, for: two, bob) == true)
        #expect(ledger.port(of: one, for: alice) == nil)
        #expect(ledger.isKept(30_000))
        #expect(ledger.keeper(of: 30_000) == bob)
        #expect(ledger.keeper(of: 30_001) == nil)
    }

    @Test("forgets the least recently used port when it is full")
    func bounded() throws {
        var ledger = PortLedger(
            namesPerAgent: 256,
            (0..<PortLedger.maximumEntries).map {
                .init(name: "n\($0)", identity: "a\($0 / 100)", port: UInt16(20_000 + $0))
            })
        #expect(ledger.count == PortLedger.maximumEntries)
        let first = try #require(Name("n0"))
        let fresh = try #require(Name("fresh"))
        // A port that is used again is no longer the oldest.
        let isChanged = ledger.note(20_000, for: first, AgentIdentity(id: "a0"))
        #expect(!isChanged)
        let isNew = ledger.note(19_000, for: fresh, alice)
        #expect(isNew)
        #expect(ledger.count == PortLedger.maximumEntries && ledger.entries.count == ledger.count)
        #expect(ledger.isKept(20_000) && !ledger.isKept(20_001))
        #expect(ledger.port(of: fresh, for: alice) == 19_000)
        #expect(ledger.entries.suffix(2).map(\.port) == [20_000, 19_000])
        #expect(PortLedger(namesPerAgent: 256, ledger.entries) == ledger)
    }

    @Test("keeps an agent's ports for twice the names that it can hold, then replaces the agent's own")
    func perIdentity() throws {
        let names = try (0..<1_201).map { try #require(Name("n\($0)")) }
        for (namesPerAgent, kept) in [(256, 512), (600, 1_200), (4_096, 1_201)] {
            var ledger = PortLedger(namesPerAgent: namesPerAgent)
            let other = try #require(Name("other"))
            _ = ledger.note(1_024, for: other, bob)
            for (number, name) in names.enumerated() { _ = ledger.note(UInt16(20_000 + number), for: name, alice) }
            #expect(names.count { ledger.port(of: $0, for: alice) != nil } == kept)
            #expect(ledger.port(of: other, for: bob) == 1_024 && ledger.count == kept + 1)
        }
        #expect(PortLedger(namesPerAgent: 4_096).maximumPerIdentity == 4_096)
    }

    @Test("a name that gets another port loses its former one")
    func moved() throws {
        let one = try #require(Name("one"))
        var ledger = PortLedger(namesPerAgent: 1)
        _ = ledger.note(30_000, for: one, alice)
        let isNew = ledger.note(30_001, for: one, alice)
        #expect(isNew && ledger.port(of: one, for: alice) == 30_001 && !ledger.isKept(30_000) && ledger.count == 1)
    }

    @Test("the cost of noting a port does not depend on the number of ports")
    func cost() throws {
        let names = try (0..<4_096).map { try #require(Name("n\($0)")) }
        var ledger = PortLedger(namesPerAgent: 4_096)
        let spent = ContinuousClock().measure {
            for _ in 0..<4 {
                for (number, name) in names.enumerated() { _ = ledger.note(UInt16(20_000 + number), for: name, alice) }
            }
        }
        #expect(spent < .seconds(5))
        #expect(ledger.count == 4_096)
    }
}
