import Testing
import Tunnel
import Wire

/// Checks the tables of deadlines and limits in docs/protocol.md against the code.
@Suite("Limit tables")
struct LimitTableTests {
    private let limits = LinkLimits()

    private func seconds(_ milliseconds: UInt64) -> String { "\(milliseconds / 1_000) s" }

    /// A number with a comma between thousands.
    private func grouped(_ number: Int) -> String {
        number < 1_000 ? "\(number)" : "\(self.grouped(number / 1_000)),\(String(number % 1_000 + 1_000).dropFirst())"
    }

    private func rate(_ burst: Int, _ perSecond: Int) -> String {
        "\(self.grouped(burst)) at once, then \(perSecond) a second"
    }

    @Test("the documented deadlines match the code")
    func deadlines() throws {
        let rows = try Document.rows(after: "<!-- deadline-table -->").map { [$0[0], $0[1], $0[2]] }
        for row in [
            ["LOGIN, from the TCP connection", seconds(limits.loginDeadline), "GOAWAY(handshake-timeout)"],
            [
                "WELCOME, at the agent, from the TCP connection", seconds(limits.welcomeDeadline),
                "GOAWAY(handshake-timeout)",
            ],
            ["ACCEPT, at the gateway", seconds(limits.acceptDeadline), "RESET(timeout)"],
            ["silence", seconds(limits.pingAfter), "PING"],
            ["silence", seconds(limits.deadAfter), "GOAWAY(dead)"],
            ["silence after a jump of the clock", seconds(limits.deadAfterJump), "GOAWAY(dead)"],
            ["the link's socket takes no bytes", seconds(limits.outputStalled), "GOAWAY(stalled)"],
        ] { #expect(rows.contains(row), "\(row)") }
    }

    @Test("the documented limits match the code")
    func sizes() throws {
        let rows = try Document.rows(after: "<!-- limit-table -->").map { [$0[0], $0[1]] }
        let payload = WireConstant.maximumPayload
        let beforeLogin = WireConstant.maximumPayloadBeforeLogin
        for row in [
            ["payload", "\(grouped(payload)) bytes; \(grouped(beforeLogin)) before WELCOME"],
            ["token", "\(grouped(Login.maximumToken)) bytes"],
            ["text of REGISTERED, GOAWAY", "\(Registered.maximumText), \(GoAway.maximumText) bytes"],
            [
                "streams without ACCEPT",
                "\(limits.pendingOpens); of one exposure what the others leave of them, at least \(limits.minPendingOpens)",
            ],
            [
                "REGISTER and UNREGISTER",
                "\(limits.registerBurst) at once, or twice the names of WELCOME, then \(limits.registersPerSecond) a second",
            ],
            ["glitches", rate(limits.glitchBurst, limits.glitchesPerSecond)],
            ["control frames that a peer does not read", "\(limits.owedControl / 1_024) KiB"],
        ] { #expect(rows.contains(row), "\(row)") }
    }
}
