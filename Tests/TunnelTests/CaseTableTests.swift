import Foundation
import Testing
import Tunnel
import Wire

/// Checks the edge cases in docs/protocol.md at a real link: bytes and their outcome.
@Suite("Case tables")
struct CaseTableTests {
    /// An end in the named state of a table.
    private func receiver(_ state: String) -> SimulatedEnd? {
        let pair = TunnelPair()
        let login = Login(method: .instance, instanceKey: Array(repeating: 1, count: 32), run: 1, token: "")
        switch state {
        case "gateway awaiting hello": return pair.gateway
        case "gateway awaiting login":
            pair.agent.link.start(software: "")
            pair.gateway.feed(pair.agent.output(atMost: 1 << 20, now: 0), now: 0)
            return pair.gateway
        case "gateway authenticating":
            pair.gateway.admits = false
            pair.agent.link.start(software: "")
            pair.agent.link.login(login)
            pair.gateway.feed(pair.agent.output(atMost: 1 << 20, now: 0), now: 0)
            return pair.gateway
        case "agent awaiting hello": return pair.agent
        case "agent awaiting welcome":
            pair.gateway.link.start(software: "")
            pair.agent.feed(pair.gateway.output(atMost: 1 << 20, now: 0), now: 0)
            return pair.agent
        case "gateway up", "agent up":
            pair.connect()
            return state == "agent up" ? pair.agent : pair.gateway
        default: return nil
        }
    }

    /// Parses `0001 00*4`: groups of hexadecimal digits, each with an optional repeat count.
    private func bytes(_ text: String) -> [UInt8]? {
        var result: [UInt8] = []
        for group in text.split(separator: " ") {
            let parts = group.split(separator: "*")
            guard let bytes = Hex.bytes(parts[0], count: parts[0].count / 2) else { return nil }
            let count = parts.count == 2 ? Int(parts[1]) ?? 0 : 1
            for _ in 0..<count { result += bytes }
        }
        return result
    }

    @Test(
        "of docs/protocol.md hold",
        arguments: [
            "gateway awaiting hello", "gateway awaiting login", "gateway authenticating", "gateway up",
            "agent awaiting hello", "agent awaiting welcome", "agent up",
        ])
    func documented(_ state: String) throws {
        let rows = try Document.rows(after: "<!-- case-table: \(state) -->")
        #expect(!rows.isEmpty)
        for row in rows {
            try #require(row.count == 3)
            let end = try #require(self.receiver(state))
            end.feed(try #require(self.bytes(row[1].filter { $0 != "`" }), "\(row[0])"), now: 0)
            let outcome = end.violations.first.map { $0.code == .protocolViolation ? "violation" : "\($0.code)" }
            #expect(outcome ?? "taken" == row[2], "\(state): \(row[0])")
        }
    }

    @Test("cover all tables of the document")
    func complete() throws {
        #expect(try Document.text().components(separatedBy: "<!-- case-table: ").count == 1 + 7)
    }

    @Test("a link knows the kinds of its gateway; a gateway that lists none supports TCP")
    func kinds() throws {
        for (row, kinds): (Int, [UInt8]) in [(0, [1]), (1, [1, 200]), (2, [])] {
            let end = try #require(self.receiver("agent awaiting hello"))
            let rows = try Document.rows(after: "<!-- case-table: agent awaiting hello -->")
            end.feed(try #require(self.bytes(rows[row][1].filter { $0 != "`" })), now: 0)
            #expect(end.link.peer?.kinds.map(\.rawValue) == kinds)
        }
        let pair = connected()
        #expect(pair.agent.link.peer?.listedKinds == [.tcp])
        #expect(pair.gateway.link.peer?.listedKinds == nil)
    }
}
