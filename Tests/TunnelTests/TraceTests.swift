import Testing
import Tunnel
import Wire

/// Replays the traces in docs/protocol.md: both machines must send exactly those bytes, in that order.
@Suite("Trace")
struct TraceTests {
    private struct Line: Equatable, CustomStringConvertible {
        let sender: String
        let bytes: [UInt8]

        var description: String {
            "\(self.sender) "
                + self.bytes.map { byte in
                    let text = String(byte, radix: 16)
                    return text.count == 1 ? "0\(text)" : text
                }.joined(separator: " ")
        }
    }

    /// Splits the bytes of one side into frames.
    private func frames(_ sender: String, _ bytes: [UInt8]) -> [Line] {
        var lines: [Line] = []
        var offset = 0
        while let header = FrameHeader(bytes.span.bytes, at: offset) {
            lines.append(Line(sender: sender, bytes: Array(bytes[offset..<(offset + 8 + header.length)])))
            offset += 8 + header.length
        }
        return lines
    }

    @Test("of docs/protocol.md matches the bytes of the machines")
    func replay() throws {
        let pair = TunnelPair()
        var lines: [Line] = []
        func agentSpeaks() {
            let bytes = pair.agent.output(atMost: 1 << 20, now: 0)
            lines += self.frames("agent", bytes)
            pair.gateway.feed(bytes, now: 0)
        }
        func gatewaySpeaks() {
            let bytes = pair.gateway.output(atMost: 1 << 20, now: 0)
            lines += self.frames("gateway", bytes)
            pair.agent.feed(bytes, now: 0)
        }
        pair.agent.link.start(software: "a/1")
        pair.agent.link.login(Login(method: .token, instanceKey: [UInt8](0..<32), run: 0x0102, token: "dgl_1_s"))
        pair.gateway.link.start(software: "g/1")
        agentSpeaks()
        gatewaySpeaks()
        pair.agent.link.register(Register(exposure: 0, port: 0, name: "example"))
        agentSpeaks()
        gatewaySpeaks()
        let opened = pair.gateway.link.open(
            exposure: 0, visitor: WireAddress(family: 4, bytes: (0xC000_0207 << 32, 0), port: 50_000),
            local: WireAddress(family: 4, bytes: (0x7F00_0001 << 32, 0), port: 33_605), now: 0)
        let key = try #require(opened)
        pair.gateway.add(key)
        pair.gateway.link.send(key, Array("GET".utf8).span.bytes, now: 0)
        pair.gateway.link.finish(key, now: 0)
        gatewaySpeaks()
        let there = try #require(pair.agent.awaitingAccept.first)
        pair.agent.accept(there, now: 0)
        pair.agent.link.send(there, Array("ok".utf8).span.bytes, now: 0)
        pair.agent.link.finish(there, now: 0)
        agentSpeaks()
        pair.gateway.link.goAway(.drain, retryAfterSeconds: 1, text: "bye")
        gatewaySpeaks()
        let documented: [Line] = try Document.trace("A worked trace").map { Line(sender: $0.sender, bytes: $0.bytes) }
        #expect(documented == lines, "the machines say:\n\(lines.map(\.description).joined(separator: "\n"))")
    }

    @Test("of a resumed session in docs/protocol.md matches the bytes of the machines")
    func resume() throws {
        let documented = try Document.trace("A resumed session").map { Line(sender: $0.sender, bytes: $0.bytes) }
        let agent = SimulatedEnd(.agent, limits: LinkLimits())
        let gateway = SimulatedEnd(.gateway, limits: LinkLimits())
        gateway.sessionKey = SessionKey(id: [UInt8](0..<16), secret: [UInt8](0x20..<0x40))
        var lines: [Line] = []
        /// Sends the queued frames of an end; returns the bytes for the other end.
        func speaks(_ end: SimulatedEnd) -> [UInt8] {
            let bytes = end.output(atMost: 1 << 20, now: 0)
            lines += self.frames(end.role == .agent ? "agent" : "gateway", bytes)
            return bytes
        }
        agent.link.start(software: "a/1")
        agent.link.login(Login(method: .token, instanceKey: [UInt8](0..<32), run: 0x0102, token: "dgl_1_s"))
        gateway.link.start(software: "g/1")
        gateway.feed(speaks(agent), now: 0)
        agent.feed(speaks(gateway), now: 0)
        agent.link.register(Register(exposure: 0, port: 0, name: "example"))
        gateway.feed(speaks(agent), now: 0)
        // The carrier breaks: REGISTERED is lost.
        _ = speaks(gateway)
        for end in [agent, gateway] { end.link.detach(now: 0) }
        let greeters = (
            agent: SimulatedEnd(.agent, limits: LinkLimits()), gateway: SimulatedEnd(.gateway, limits: LinkLimits())
        )
        greeters.agent.link.start(software: "a/1")
        greeters.gateway.link.start(software: "g/1")
        greeters.gateway.feed(speaks(greeters.agent), now: 0)
        greeters.agent.feed(speaks(greeters.gateway), now: 0)
        var resume = agent.link.nextResume()
        resume.proof =
            documented.first { $0.bytes[4] == FrameType.resume.rawValue }.map { Array($0.bytes[36..<68]) } ?? []
        try #require(resume.proof.count == Resume.proofSize)
        greeters.agent.link.request(resume)
        greeters.gateway.feed(speaks(greeters.agent), now: 0)
        #expect(greeters.gateway.resumes == [resume])
        #expect(gateway.link.judge(resume, now: 0) == .resumed)
        let answer = speaks(gateway)
        greeters.agent.feed(answer, now: 0)
        try agent.link.resume(try #require(greeters.agent.resumedFrames.first), now: 0)
        agent.feed(greeters.agent.rest, now: 0)
        gateway.feed(speaks(agent), now: 0)
        #expect(agent.registered.map(\.port) == [33_605])
        for end in [agent, gateway] { end.link.acknowledge() }
        agent.feed(speaks(gateway), now: 0)
        gateway.feed(speaks(agent), now: 0)
        #expect(documented == lines, "the machines say:\n\(lines.map(\.description).joined(separator: "\n"))")
    }
}
