import Registry
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

    @Test("a free name is granted, and free again after it was given back")
    func grant() {
        var registry = Registry(maximumNamesPerLink: 4)
        #expect(registry.register(self.name, holder(alice, link: 1), now: 0) == .granted)
        #expect(registry.holder(of: self.name)?.link == 1)
        registry.unregister(self.name, link: 1, exposure: 0)
        #expect(registry.register(self.name, holder(bob, link: 2), now: 0) == .granted)
    }

    @Test("another identity never takes a name over")
    func taken() {
        var registry = Registry(maximumNamesPerLink: 4)
        _ = registry.register(self.name, holder(alice, link: 1), now: 0)
        guard case .refused(.nameTaken, _) = registry.register(self.name, holder(bob, link: 2), now: 0) else {
            Issue.record("bob took the name")
            return
        }
        #expect(registry.holder(of: self.name)?.identity == alice)
    }

    @Test("the same identity takes its name over at once; the late word of the old link changes nothing")
    func takeover() {
        var registry = Registry(maximumNamesPerLink: 4)
        let old = holder(alice, link: 1)
        _ = registry.register(self.name, old, now: 0)
        #expect(registry.register(self.name, holder(alice, link: 2), now: 1) == .takenOver(from: old, .replaced))
        registry.unregister(self.name, link: 1, exposure: 0)
        #expect(registry.holder(of: self.name)?.link == 2)
    }

    @Test("two programs that displace each other are told of a conflict; a program that only reconnects is not")
    func conflict() {
        var registry = Registry(maximumNamesPerLink: 4)
        func codes(_ runs: [UInt64], every: UInt64) -> [ErrorCode?] {
            runs.enumerated().map { index, run in
                let wish = holder(alice, link: UInt64(100 + index), run: run)
                if case .takenOver(_, let code) = registry.register(self.name, wish, now: UInt64(index) * every) {
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

    @Test("a link has a bounded number of names, each with a number of its own")
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
}

@Suite("PortLedger")
struct PortLedgerTests {
    @Test("keeps a port for identity and name; a port has one owner")
    func ports() throws {
        let one = try #require(Name("one"))
        let two = try #require(Name("two"))
        var ledger = PortLedger()
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

    @Test("forgets what was used longest ago when it is full")
    func bounded() throws {
        var ledger = PortLedger(
            (0..<PortLedger.maximumEntries).map { .init(name: "n\($0)", identity: "a", port: UInt16(20_000 + $0)) })
        let name = try #require(Name("fresh"))
        _ = ledger.note(19_000, for: name, alice)
        #expect(ledger.entries.count == PortLedger.maximumEntries)
        #expect(!ledger.isKept(20_000))
        #expect(ledger.port(of: name, for: alice) == 19_000)
    }
}
