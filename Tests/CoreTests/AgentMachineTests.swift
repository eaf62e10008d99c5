import AgentCore
import Testing
import Wire

private func machine(once: Bool = false, names: [String] = ["example"]) throws -> AgentMachine {
    AgentMachine(wantedNames: try names.map { WantedName(name: try #require(Name($0)), port: 0) }, once: once)
}

private func up(_ machine: inout AgentMachine, now: UInt64 = 0) {
    _ = machine.started()
    machine.connected()
    _ = machine.welcomed(Welcome(linkID: 1, maximumNames: 16), now: now)
}

/// Runs the machine up to the TCP connection that succeeds after this many failures.
private func connect(_ machine: inout AgentMachine, afterFailures failures: Int) {
    _ = machine.started()
    for _ in 0..<failures {
        _ = machine.dialFailed("no", now: 0, random: 0)
        _ = machine.deadlineReached(now: .max)
    }
    machine.connected()
}

@Suite("AgentMachine")
struct AgentMachineTests {
    @Test("dials, registers every name and announces them")
    func happy() throws {
        var machine = try machine(names: ["a", "b"])
        #expect(machine.started() == .dial)
        machine.connected()
        #expect(
            machine.welcomed(Welcome(linkID: 1, maximumNames: 2), now: 0)
                == [
                    .register([
                        Register(exposure: 0, port: 0, name: "a"), Register(exposure: 1, port: 0, name: "b"),
                    ])
                ])
        let wanted = try #require(machine.wanted(of: 1))
        #expect(
            machine.registered(Registered(exposure: 1, code: .none, port: 7, text: "h:7"), now: 0)
                == .announce(wanted, port: 7, address: "h:7", note: nil))
    }

    @Test("waits longer after each failure, up to a minute, with full jitter")
    func backoff() throws {
        var machine = try machine()
        _ = machine.started()
        var waits: [UInt64] = []
        for _ in 0..<9 {
            guard case .wait(let wait) = machine.dialFailed("no", now: 0, random: .max - 1) else { continue }
            waits.append(wait)
            #expect(machine.deadlineReached(now: .max) == [.dial])
        }
        let bounds: [UInt64] = [1, 2, 4, 8, 16, 32, 60, 60, 60].map { $0 * 1_000 }
        #expect(waits.count == 9)
        for (wait, bound) in zip(waits, bounds) { #expect(wait <= bound) }
        guard case .wait(0) = machine.dialFailed("no", now: 0, random: 0) else {
            Issue.record("full jitter begins at nothing")
            return
        }
    }

    @Test(
        "a link that was up for at least 10 s, and as long as the longest wait before it, resets the backoff",
        arguments: [
            (failures: 0, milliseconds: 0, longest: 1), (0, 9_999, 1), (2, 9_999, 4), (2, 10_000, 1), (5, 15_999, 32),
            (5, 16_000, 1), (9, 59_999, 60), (9, 60_000, 1),
        ] as [(failures: Int, milliseconds: UInt64, longest: UInt64)])
    func reset(_ failures: Int, _ milliseconds: UInt64, _ longest: UInt64) throws {
        var machine = try machine()
        connect(&machine, afterFailures: failures)
        _ = machine.welcomed(Welcome(linkID: 1, maximumNames: 16), now: 5)
        let atMost = longest * 1_000
        #expect(machine.linkEnded("gone", now: 5 + milliseconds, random: atMost) == .wait(atMost))
    }

    @Test("reconnects at once to a gateway that announced its shutdown, whatever failed before")
    func drained() throws {
        var machine = try machine()
        connect(&machine, afterFailures: 9)
        _ = machine.welcomed(Welcome(linkID: 1, maximumNames: 16), now: 0)
        _ = machine.goAway(GoAway(code: .drain), now: 0)
        #expect(machine.linkEnded("gone", now: 1, random: 1_000) == .wait(1_000))
        #expect(machine.deadlineReached(now: .max) == [.dial])
        #expect(machine.dialFailed("no", now: 0, random: 2_000) == .wait(2_000))
    }

    @Test("retries every two seconds for five minutes after the gateway announced its shutdown, then as usual")
    func hurries() throws {
        var machine = try machine()
        up(&machine)
        _ = machine.goAway(GoAway(code: .drain, retryAfterSeconds: 1), now: 10_000)
        _ = machine.linkEnded("gone", now: 10_000, random: 0)
        for now in stride(from: 11_000 as UInt64, to: 311_000, by: 1_000) {
            _ = machine.deadlineReached(now: .max)
            guard case .wait(let wait) = machine.dialFailed("no", now: now, random: 60_000), wait <= 2_000 else {
                Issue.record("waits longer at \(now)")
                return
            }
        }
        _ = machine.deadlineReached(now: .max)
        #expect(machine.dialFailed("no", now: 311_000, random: 60_000) == .wait(60_000))
    }

    @Test("adds the gateway's retry-after to the wait")
    func wanted() throws {
        var machine = try machine()
        _ = machine.started()
        machine.connected()
        _ = machine.welcomed(Welcome(linkID: 1, maximumNames: 16), now: 0)
        _ = machine.goAway(GoAway(code: .drain, retryAfterSeconds: 7), now: 0)
        #expect(machine.linkEnded("gone", now: 60_000, random: 1_000) == .wait(8_000))
    }

    @Test("announces an address only if it changed")
    func repeatedAnswer() throws {
        var machine = try machine()
        up(&machine)
        func answer(_ port: UInt16) -> AgentMachine.Action {
            machine.registered(Registered(exposure: 0, code: .none, port: port, text: "h:\(port)"), now: 0)
        }
        #expect(answer(1) != .none)
        #expect(answer(1) == .none)
        #expect(answer(2) != .none)
        _ = machine.registered(Registered(exposure: 0, code: .withdrawn, port: 0, text: ""), now: 0)
        #expect(answer(2) != .none)
    }

    @Test("waits at most five minutes longer, whatever the gateway requests")
    func longAbsence() throws {
        var machine = try machine()
        _ = machine.started()
        machine.connected()
        _ = machine.welcomed(Welcome(linkID: 1, maximumNames: 16), now: 0)
        _ = machine.goAway(GoAway(code: .drain, retryAfterSeconds: .max), now: 0)
        guard case .wait(let wait) = machine.linkEnded("gone", now: 60_000, random: 1_000) else {
            Issue.record("no wait")
            return
        }
        #expect(wait >= 300_000 && wait <= 301_000)
    }

    @Test(
        "exits on refusals that retrying cannot fix, each with its own code",
        arguments: zip(
            [ErrorCode.loginRefused, .notLoopback, .replaced, .conflict, .version, .revoked, .methodNotSupported],
            [ExitReason.loginRefused, .notLoopback, .replaced, .conflict, .version, .loginRefused, .version]))
    func finalGoodbyes(_ code: ErrorCode, _ reason: ExitReason) throws {
        var machine = try machine()
        up(&machine)
        guard case .stop(reason, _) = machine.goAway(GoAway(code: code), now: 0) else {
            Issue.record("\(code) did not end it")
            return
        }
        #expect(machine.linkEnded("gone", now: 1, random: 1) == .none)
    }

    @Test("reconnects after any other GOAWAY", arguments: [ErrorCode.drain, .dead, .tooManyLinks, .glitches, .owed])
    func passingGoodbyes(_ code: ErrorCode) throws {
        var machine = try machine()
        up(&machine)
        #expect(machine.goAway(GoAway(code: code), now: 0) == .none)
        guard case .wait = machine.linkEnded("gone", now: 1, random: 1) else {
            Issue.record("\(code) ended it")
            return
        }
    }

    @Test("exits if a name is taken at the start, but requests it again if it held the name before")
    func taken() throws {
        let refusal = Registered(exposure: 0, code: .nameTaken, port: 0, text: "held")
        var fresh = try machine()
        up(&fresh)
        #expect(
            fresh.registered(refusal, now: 0)
                == .stop(.nameTaken, "the gateway refused the name 'example': held"))
        var returning = try machine()
        up(&returning)
        _ = returning.registered(Registered(exposure: 0, code: .none, port: 1, text: ""), now: 0)
        guard case .missing = returning.registered(refusal, now: 0) else {
            Issue.record("gave up a name that was its own")
            return
        }
        #expect(returning.deadlineReached(now: 29_999).isEmpty)
        #expect(
            returning.deadlineReached(now: 30_000) == [.register([Register(exposure: 0, port: 0, name: "example")])])
        #expect(returning.deadlineReached(now: 60_000).isEmpty)
    }

    @Test(
        "waits at most 300 s for a gateway that requests more",
        arguments: [(299, 299), (300, 300), (301, 300), (65_535, 300)])
    func longestRetry(_ asked: UInt16, _ seconds: UInt64) throws {
        var machine = try machine()
        up(&machine)
        _ = machine.goAway(GoAway(code: .drain, retryAfterSeconds: asked), now: 0)
        #expect(machine.linkEnded("gone", now: 0, random: 0) == .wait(seconds * 1_000))
    }

    @Test("reports its progress, and how many names are reachable")
    func progress() throws {
        var machine = try machine(names: ["a", "b"])
        #expect(machine.progress == .connecting)
        up(&machine)
        #expect(machine.progress == .connected(names: 0))
        for exposure in [0, 1, 1] as [UInt16] {
            _ = machine.registered(Registered(exposure: exposure, code: .none, port: 7, text: ""), now: 0)
        }
        #expect(machine.progress == .connected(names: 2))
        _ = machine.registered(Registered(exposure: 0, code: .withdrawn, port: 0, text: ""), now: 0)
        #expect(machine.progress == .connected(names: 1))
        _ = machine.linkEnded("gone", now: 0, random: 0)
        #expect(machine.progress == .waiting)
        _ = machine.deadlineReached(now: .max)
        #expect(machine.progress == .connecting)
        machine.connected()
        _ = machine.welcomed(Welcome(linkID: 2, maximumNames: 16), now: 0)
        #expect(machine.progress == .connected(names: 0))
    }

    @Test("ends a wait at its deadline, and not before")
    func deadline() throws {
        var machine = try machine()
        _ = machine.started()
        #expect(machine.nextDeadline == nil)
        #expect(machine.dialFailed("no", now: 5, random: 700) == .wait(700))
        #expect(machine.nextDeadline == 705)
        #expect(machine.deadlineReached(now: 704).isEmpty)
        #expect(machine.deadlineReached(now: 705) == [.dial])
        #expect(machine.nextDeadline == nil)
    }

    @Test("continues after a refused token only with another token, or stops")
    func awaitsToken() throws {
        var machine = try machine()
        up(&machine)
        machine.tokenRefused(now: 0)
        #expect(machine.progress == .waiting && machine.nextDeadline == nil)
        #expect(machine.deadlineReached(now: .max).isEmpty)
        #expect(machine.tokenChanged() == .dial)
        #expect(machine.tokenChanged() == .none)
        machine.tokenRefused(now: 0)
        #expect(machine.stopRequested() == .stop(.stopped, "stopped"))
        #expect(machine.tokenChanged() == .none)
    }

    @Test("a token refused after a long link does not lengthen later waits")
    func tokenAfterLongLink() throws {
        var machine = try machine()
        connect(&machine, afterFailures: 7)
        _ = machine.welcomed(Welcome(linkID: 1, maximumNames: 16), now: 5)
        machine.tokenRefused(now: 86_400_000)
        _ = machine.tokenChanged()
        #expect(machine.dialFailed("away", now: 86_400_000, random: 2_000) == .wait(2_000))
    }

    @Test("with --once, stops at the first failure")
    func once() throws {
        var machine = try machine(once: true)
        _ = machine.started()
        #expect(machine.dialFailed("unreachable", now: 0, random: 1) == .stop(.unavailable, "unreachable"))
        #expect(machine.deadlineReached(now: .max).isEmpty)
    }

    @Test("ignores all events after its stop")
    func stopped() throws {
        var machine = try machine()
        up(&machine)
        #expect(machine.stopRequested() == .stop(.stopped, "stopped"))
        #expect(machine.stopRequested() == .none)
        #expect(machine.linkEnded("gone", now: 0, random: 0) == .none)
        #expect(machine.keyRefused("x") == .none)
    }

    @Test("exits with different codes for a wrong key and for unreadable known keys")
    func keys() throws {
        var (wrong, unreadable) = (try machine(), try machine())
        #expect(wrong.keyRefused("x") == .stop(.wrongGatewayKey, "x"))
        #expect(unreadable.keyRefused("x", reason: .configuration) == .stop(.configuration, "x"))
    }

    @Test("announces an address of the maximum length unchanged")
    func longAddress() throws {
        var machine = try machine()
        up(&machine)
        let text = "https://a.test/" + String(repeating: "x", count: 490)
        guard
            case .announce(_, _, text, _) = machine.registered(
                Registered(exposure: 0, code: .none, port: 1, text: text), now: 0)
        else { return _ = Issue.record("no announcement") }
    }
}

@Suite("GatewayTrust")
struct GatewayTrustTests {
    private func judge(
        pins: [String] = [], system: Bool = false, dates: String? = nil, known: String? = nil, damagedAt: String? = nil,
        loopback: Bool = false, terminal: Bool = false
    ) -> GatewayTrust.Verdict {
        GatewayTrust.judge(
            gateway: "gw:20000", pins: pins, shown: "sha256/S", isTrustedBySystem: system, dateFault: dates,
            known: known, knownAt: "known_gateways:3", damagedAt: damagedAt, isLoopback: loopback, hasTerminal: terminal
        )
    }

    private func refusal(_ verdict: GatewayTrust.Verdict) -> String? {
        if case .refuse(let text) = verdict { text } else { nil }
    }

    @Test("configured pins alone decide, whatever else would trust the key")
    func pins() {
        #expect(judge(pins: ["sha256/S"]) == .accept)
        #expect(judge(pins: ["sha256/O", "sha256/S"]) == .accept)
        let text = refusal(judge(pins: ["sha256/O"], system: true, known: "sha256/S", loopback: true, terminal: true))
        #expect(text?.contains("sha256/S") == true && text?.contains("sha256/O") == true)
    }

    @Test("without pins the system's authorities decide, then the known key; a changed key is reported with its line")
    func known() {
        #expect(judge(system: true, known: "sha256/O") == .accept)
        #expect(judge(known: "sha256/S") == .accept)
        let text = refusal(judge(known: "sha256/O", loopback: true, terminal: true))
        #expect(text?.contains("sha256/S") == true && text?.contains("sha256/O") == true)
        #expect(text?.contains("known_gateways:3") == true)
    }

    @Test("an unknown key is remembered on loopback, confirmed at a terminal, and refused otherwise")
    func unknown() {
        #expect(judge(loopback: true) == .acceptAndRemember)
        #expect(judge(terminal: true) == .ask)
        #expect(refusal(judge())?.contains("--pin sha256/S") == true)
    }

    @Test("a certificate with only a date fault makes the agent wait, unless its key is pinned or known")
    func dates() {
        let text = "the certificate of gw:20000 expired on DATE"
        #expect(judge(dates: "expired on DATE") == .wait(text))
        #expect(judge(dates: "expired on DATE", known: "sha256/O", loopback: true) == .wait(text))
        #expect(judge(dates: "expired on DATE", damagedAt: "known_gateways:7", terminal: true) == .wait(text))
        #expect(judge(dates: "expired on DATE", known: "sha256/S") == .accept)
        #expect(judge(pins: ["sha256/S"], dates: "expired on DATE") == .accept)
        #expect(refusal(judge(pins: ["sha256/O"], dates: "expired on DATE")) != nil)
    }

    @Test("a certificate with a date fault is accepted on loopback with a warning, and not remembered")
    func datesOnLoopback() {
        guard case .acceptWithWarning(let text) = judge(dates: "expired on DATE", loopback: true) else {
            return _ = Issue.record("it was not accepted")
        }
        #expect(text.contains("expired on DATE") && text.contains("sha256/S") && text.contains("not remembered"))
    }

    @Test("a damaged line is reported as such, and never as a changed key")
    func damaged() {
        let text = refusal(judge(damagedAt: "known_gateways:7")) ?? ""
        #expect(text.contains("known_gateways:7 is damaged: delete that line") && text.contains("--pin sha256/S"))
        #expect(!text.contains("changed"))
        #expect(judge(damagedAt: "known_gateways:7", loopback: true) == .acceptAndRemember)
        #expect(judge(damagedAt: "known_gateways:7", terminal: true) == .ask)
        #expect(judge(known: "sha256/S", damagedAt: "known_gateways:7") == .accept)
        #expect(refusal(judge(known: "sha256/O", damagedAt: "known_gateways:7"))?.contains("has changed") == true)
    }
}
