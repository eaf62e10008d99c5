import AgentCore
import Testing
import Wire

/// An agent with an established link.
private struct Stand {
    var machine: AgentMachine
    private(set) var now: UInt64 = 0

    init(_ names: [String], once: Bool = false) throws {
        self.machine = AgentMachine(wantedNames: try names.map(Self.wanted), once: once)
        _ = self.machine.started()
        self.machine.connected()
    }

    static func wanted(_ name: String) throws -> WantedName { WantedName(name: try #require(Name(name)), port: 0) }

    mutating func welcome(_ atMost: UInt16 = 16) -> [AgentMachine.Action] {
        self.machine.welcomed(Welcome(linkID: 1, maximumNames: atMost), now: self.now)
    }

    mutating func answer(_ exposure: UInt16, _ code: ErrorCode, _ text: String = "") -> AgentMachine.Action {
        let port: UInt16 = code == .none ? 4_711 : 0
        return self.machine.registered(
            Registered(exposure: exposure, code: code, port: port, text: text), now: self.now)
    }

    /// The actions due at `now`. `nextDeadline` must have announced them.
    mutating func reach(_ now: UInt64) -> [AgentMachine.Action] {
        let isDue = self.machine.nextDeadline.map { $0 <= now } ?? false
        let actions = self.machine.deadlineReached(now: now)
        #expect(isDue == !actions.isEmpty)
        #expect(self.machine.nextDeadline.map { $0 > now } ?? true, "it would be called again at once")
        return actions
    }

    /// The names requested within the next `seconds` seconds, each with its second.
    mutating func asked(within seconds: UInt64) -> [(second: UInt64, name: String)] {
        var result: [(UInt64, String)] = []
        for _ in 0..<seconds {
            self.now += 1_000
            guard case .register(let requests) = self.reach(self.now).last else { continue }
            result += requests.map { (self.now / 1_000, $0.name) }
        }
        return result
    }
}

private func names(_ actions: [AgentMachine.Action]) -> [String] {
    actions.flatMap { action -> [String] in
        switch action {
        case .register(let requests): requests.map { "+\($0.name)" }
        case .unregister(let numbers): numbers.map { "-\($0)" }
        case .missing(let wanted, let code, _): ["?\(wanted.name) \(code)"]
        case .stop(let reason, _): ["stop \(reason)"]
        default: ["\(action)"]
        }
    }
}

@Suite("WantedNames")
struct WantedNamesTests {
    @Test(
        "one refused name of three does not affect the others, whatever the reason",
        arguments: [
            ErrorCode.nameNotAllowed, .nameTaken, .nameInvalid, .portNotAllowed, .portTaken, .tooManyNames,
            .kindNotSupported, .registrarFailed, .overloaded,
        ])
    func oneOfThree(_ code: ErrorCode) throws {
        var stand = try Stand(["a", "b", "c"])
        #expect(names(stand.welcome()) == ["+a", "+b", "+c"])
        #expect(names([stand.answer(1, code)]) == ["?b \(code)"])
        _ = stand.answer(0, .none)
        _ = stand.answer(2, .none)
        #expect(stand.machine.progress == .connected(names: 2))
        let asked = stand.asked(within: 300).map(\.name)
        #expect(!asked.isEmpty && Set(asked) == ["b"])
    }

    @Test("stops when all names are permanently refused, with the last reason")
    func allRefused() throws {
        var stand = try Stand(["a", "b", "c"])
        _ = stand.welcome()
        #expect(names([stand.answer(0, .nameNotAllowed)]) == ["?a name-not-allowed"])
        #expect(names([stand.answer(2, .nameTaken)]) == ["?c name-taken"])
        #expect(
            stand.answer(1, .nameInvalid, "no")
                == .stop(.nameRefused, "the gateway refused all 3 names, most recently 'b': no"))
    }

    @Test("continues while one of the names may become available")
    func someMayCome() throws {
        var stand = try Stand(["a", "b"])
        _ = stand.welcome()
        _ = stand.answer(0, .nameNotAllowed)
        #expect(names([stand.answer(1, .portTaken)]) == ["?b port-taken"])
    }

    @Test("with --once, stops at the first permanent refusal and at a busy port")
    func once() throws {
        for (code, reason) in [(ErrorCode.nameNotAllowed, ExitReason.nameRefused), (.portTaken, .portRefused)] {
            var stand = try Stand(["a", "b"], once: true)
            _ = stand.welcome()
            #expect(stand.answer(1, code, "no") == .stop(reason, "the gateway refused the name 'b': no"))
        }
        var stand = try Stand(["a", "b"], once: true)
        #expect(names(stand.welcome(1)) == ["stop nameRefused"])
    }

    @Test("requests a busy port again after 1, 2, 4, 8, 16 and then every 30 s")
    func growing() throws {
        var stand = try Stand(["a"])
        _ = stand.welcome()
        var seconds: [UInt64] = []
        for _ in 0..<7 {
            _ = stand.answer(0, .portTaken)
            let asked = try #require(stand.asked(within: 31).first)
            // `asked` has advanced the clock to the end of its span.
            seconds.append(asked.second - (stand.now / 1_000 - 31))
        }
        #expect(seconds == [1, 2, 4, 8, 16, 30, 30])
    }

    @Test("registers the names that fit, reports the others, and retries when there is room or after five minutes")
    func tooMany() throws {
        var stand = try Stand(["a", "b", "c", "d"])
        #expect(names(stand.welcome(2)) == ["+a", "+b", "?c too-many-names", "?d too-many-names"])
        _ = stand.answer(0, .none)
        _ = stand.answer(1, .none)
        #expect(stand.asked(within: 299).isEmpty)
        // One request tests the limit for both names.
        #expect(stand.asked(within: 1).map(\.name) == ["c"])
        _ = stand.answer(2, .tooManyNames)
        #expect(stand.asked(within: 299).isEmpty)
        let wantedNames = try ["b", "c", "d"].map(Stand.wanted)
        #expect(names(stand.machine.changed(to: wantedNames, now: stand.now)) == ["-0", "+c"])
    }

    @Test("requests one more name after each name that a raised limit has admitted")
    func raisedLimit() throws {
        var stand = try Stand(["a", "b", "c", "d"])
        _ = stand.welcome(1)
        _ = stand.answer(0, .none)
        #expect(stand.asked(within: 300).map(\.name) == ["b"])
        #expect(stand.asked(within: 60).isEmpty, "one at a time")
        _ = stand.answer(1, .none)
        #expect(stand.asked(within: 1).map(\.name) == ["c"])
        _ = stand.answer(2, .tooManyNames)
        #expect(stand.asked(within: 299).isEmpty)
        #expect(stand.asked(within: 1).map(\.name) == ["c"])
    }

    @Test("requests the names that it held first when the next link accepts fewer")
    func oursFirst() throws {
        var stand = try Stand(["a", "b", "c"])
        _ = stand.welcome()
        _ = stand.answer(2, .none)
        _ = stand.machine.linkEnded("gone", now: 0, random: 0)
        _ = stand.machine.deadlineReached(now: stand.now)
        stand.machine.connected()
        #expect(names(stand.welcome(2)) == ["+a", "+c", "?b too-many-names"])
    }

    @Test("never requests more names than the gateway accepts without counting a fault")
    func pace() throws {
        let all = (0..<100).map { "n\($0)" }
        var stand = try Stand(all)
        #expect(names(stand.welcome(100)).count == 100)
        for number in 0..<100 as Range<UInt16> { _ = stand.answer(number, .registrarFailed) }
        var count = 100
        var allowed = 200
        for _ in 0..<300 {
            let asked = stand.asked(within: 1)
            allowed += 1
            count += asked.count
            #expect(count <= allowed)
            for (_, name) in asked {
                _ = stand.answer(UInt16(all.firstIndex(of: name) ?? 0), .registrarFailed)
            }
        }
        #expect(count > 350, "and not for much less either")
    }

    @Test("stays within the rate that the gateway accepts when the names change repeatedly")
    func changes() throws {
        var stand = try Stand((0..<60).map { "a\($0)" })
        _ = stand.welcome(100)
        for number in 0..<60 as Range<UInt16> { _ = stand.answer(number, .none) }
        func frames(_ actions: [AgentMachine.Action]) -> Int { names(actions).count }
        var sent = 60
        for round in 0..<4 {
            let wantedNames = try (0..<60).map { try Stand.wanted("b\(round)-\($0)") }
            sent += frames(stand.machine.changed(to: wantedNames, now: 0))
        }
        #expect(sent <= 200 && sent > 150)
        var asked: [String] = []
        for second in 1...600 as ClosedRange<UInt64> {
            let actions = stand.reach(second * 1_000)
            sent += frames(actions)
            #expect(sent <= 200 + Int(second))
            asked += names(actions).filter { $0.hasPrefix("+") }
        }
        #expect(asked.contains("+b3-59"), "in the end all are asked for")
    }

    @Test("after a change, unchanged names keep their numbers, new names are requested and removed names given up")
    func changed() throws {
        var stand = try Stand(["a", "b", "c"])
        let wantedNames = try ["d", "c", "a", "e"].map(Stand.wanted)
        #expect(stand.machine.changed(to: try ["a", "b", "c"].map(Stand.wanted), now: 0).isEmpty)
        #expect(names(stand.welcome()) == ["+a", "+b", "+c"])
        _ = stand.answer(0, .none)
        #expect(names(stand.machine.changed(to: wantedNames, now: 0)) == ["-1", "+d", "+e"])
        #expect(stand.machine.wanted(of: 0)?.name.text == "a" && stand.machine.wanted(of: 2)?.name.text == "c")
        #expect(stand.machine.wanted(of: 1) == nil, "late frames for it belong to no name")
        #expect(stand.machine.wanted(of: 3)?.name.text == "d")
        #expect(stand.answer(1, .none) == .none)
        let other = WantedName(name: try #require(Name("a")), port: 7)
        #expect(names(stand.machine.changed(to: [other], now: 0)) == ["-3", "-2", "-0", "-4", "+a"])
        #expect(stand.machine.wanted(of: 5) == other)
    }
}
