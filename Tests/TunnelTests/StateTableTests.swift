import Testing
import Tunnel
import Wire

@Suite("State table")
struct StateTableTests {
    @Test("every frame in every phase is either allowed or ends the link", arguments: [Role.gateway, .agent])
    func walk(_ role: Role) {
        for phase in LinkPhase.allCases {
            for type in FrameType.allCases {
                let allowed = phase.allows(type, at: role)
                if phase == .closed { #expect(!allowed) }
                if type == .hello { #expect(allowed == (phase == .awaitingHello)) }
                if type == .data { #expect(allowed == (phase == .up || phase == .leaving || phase == .draining)) }
            }
        }
        #expect(LinkPhase.up.allows(.open, at: .agent))
        #expect(!LinkPhase.draining.allows(.open, at: .agent))
        #expect(!LinkPhase.up.allows(.open, at: .gateway))
        #expect(!LinkPhase.awaitingLogin.allows(.register, at: .gateway))
    }

    @Test("matches the table in docs/protocol.md")
    func documented() throws {
        let rows = try Document.rows(after: "<!-- state-table -->")
        let phases: [(LinkPhase, Role)] = [
            (.awaitingHello, .gateway), (.awaitingLogin, .gateway), (.authenticating, .gateway), (.up, .gateway),
            (.leaving, .gateway), (.draining, .gateway), (.awaitingHello, .agent), (.awaitingWelcome, .agent),
            (.awaitingResumed, .agent), (.up, .agent), (.leaving, .agent), (.draining, .agent),
        ]
        #expect(rows.count == FrameType.allCases.count)
        for (type, row) in zip(FrameType.allCases, rows) {
            let expected = phases.map { $0.0.allows(type, at: $0.1) ? "yes" : "–" }
            #expect(Array(row.dropFirst()) == expected, "\(type)")
        }
    }
}
