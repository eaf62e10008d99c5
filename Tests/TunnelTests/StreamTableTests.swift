import Testing
import Tunnel
import Wire

/// Checks the table of stream states in docs/protocol.md: one frame in each state, at a real link of each role.
@Suite("Stream table")
struct StreamTableTests {
    private enum Fixture: Error { case unknownState(String), unknownFrame(String) }

    private static let frames = ["OPEN", "ACCEPT", "DATA", "FIN", "WINDOW", "RESET"]

    /// The end that receives the frame, the key of the stream, and the ID in the frame.
    private func receiver(_ role: String, _ state: String) throws -> (SimulatedEnd, StreamKey, UInt32) {
        if ["never opened", "next id", "later id"].contains(state) {
            let pair = connected()
            let end = role == "gateway" ? pair.gateway : pair.agent
            return (end, StreamKey(slot: 0, id: 1), state == "later id" ? 2 : 1)
        }
        let pair = connected()
        let here = try #require(pair.open())
        pair.exchange()
        let there = try #require(pair.agent.awaitingAccept.first)
        let (end, key) = role == "gateway" ? (pair.gateway, here) : (pair.agent, there)
        if state == "waiting" { return (end, key, key.id) }
        pair.agent.accept(there, now: 0)
        pair.exchange()
        switch state {
        case "open": break
        case "gateway sent FIN": pair.gateway.link.finish(here, now: 0)
        case "agent sent FIN": pair.agent.link.finish(there, now: 0)
        case "both sent FIN":
            pair.gateway.link.finish(here, now: 0)
            pair.agent.link.finish(there, now: 0)
        case "gateway sent RESET": pair.gateway.link.reset(here, .aborted)
        case "agent sent RESET": pair.agent.link.reset(there, .aborted)
        default: throw Fixture.unknownState(state)
        }
        pair.exchange()
        // The edge is closed, so the stream is over.
        if state == "both sent FIN" || state.hasSuffix("RESET") { end.link.release(key) }
        return (end, key, key.id)
    }

    private func bytes(_ name: String, _ id: UInt32) throws -> [UInt8] {
        switch name {
        case "OPEN": frame(id, 7, [UInt8](repeating: 0, count: 48))
        case "ACCEPT": frame(id, 8, number(1 << 30))
        case "DATA": frame(id, 9, [0])
        case "FIN": frame(id, 9, flags: 1)
        case "WINDOW": frame(id, 10, number(1 << 30))
        case "RESET": frame(id, 11, [0, 6])
        default: throw Fixture.unknownFrame(name)
        }
    }

    /// The effect of a frame: a violation, "taken" if the driver or the credit shows an effect, or "ignored".
    private func outcome(_ end: SimulatedEnd, _ key: StreamKey, _ frame: [UInt8]) -> String {
        let before = end.link.sendAllowance(key)
        var offset = 0
        switch end.link.nextEvent(frame.span.bytes, at: &offset, now: 0) {
        case .violation(let violation):
            return violation.code == .protocolViolation ? "violation" : "\(violation.code)"
        case .needMore: return end.link.sendAllowance(key) > before ? "taken" : "ignored"
        default: return "taken"
        }
    }

    @Test("of docs/protocol.md holds for each state, frame and role")
    func documented() throws {
        let rows = try Document.rows(after: "<!-- stream-table -->")
        #expect(rows.count == 17)
        for row in rows {
            try #require(row.count == 2 + Self.frames.count)
            for (name, expected) in zip(Self.frames, row.dropFirst(2)) {
                let (end, key, id) = try self.receiver(row[0], row[1])
                let outcome = self.outcome(end, key, try self.bytes(name, id))
                #expect(outcome == expected, "\(name) at the \(row[0]), stream: \(row[1])")
            }
        }
    }
}
