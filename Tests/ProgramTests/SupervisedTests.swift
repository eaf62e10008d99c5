import Agent
import AgentCore
import Gateway
import Glibc
import Reactor
import Settings
import Supervision
import TestSupport
import Testing
import Wire

@Suite("State that survives a gateway", .serialized, .timeLimit(.minutes(1)))
struct SupervisedTests {
    /// A listener of a former run, and its port.
    private func kept(_ name: String, of identity: String) throws -> (sockets: InheritedSockets, port: UInt16) {
        let loop = try EventLoop()
        let listener = try SocketListener(loop: loop, address: .loopback4(port: 0))
        let port = listener.port
        let copy = dup(try #require(listener.descriptor))
        listener.leave()
        loop.close()
        let stored = StoredName(kind: .tcp, name: try #require(Name(name)), identity: identity)
        return (InheritedSockets(names: ["\(stored)"], first: copy), port)
    }

    @Test("a listener that no agent claims is held for its time; then its visitors are reset")
    func expiry() throws {
        let kept = try self.kept("example", of: "somebody")
        let world = try World(sockets: kept.sockets, hold: 500)
        let began = world.loop.now
        let visitor = try world.visit(kept.port)
        #expect(world.loop.run { visitor.error != nil || visitor.hasEnded })
        #expect(visitor.error == .connectionReset)
        #expect(world.loop.now - began >= 500)
        // The port is free again.
        try SocketListener(loop: world.loop, address: .loopback4(port: kept.port)).close()
        visitor.stream.close()
        world.finish()
    }

    @Test("an agent does not get the listener that was stored for another agent's name")
    func otherIdentity() throws {
        let kept = try self.kept("example", of: "somebody")
        let world = try World(sockets: kept.sockets)
        let visitor = try world.visit(kept.port)
        _ = try world.startAgent(["example=127.0.0.1:9"])
        #expect(try world.port(of: "example") != kept.port)
        #expect(world.loop.run { visitor.error != nil || visitor.hasEnded })
        visitor.stream.close()
        world.finish()
    }

    @Test("a stored listener's name identifies its owner, and malformed names are refused")
    func storedNames() throws {
        let hash = "0123456789abcdef0123456789abcdef"
        for kind in StoredName.Kind.allCases {
            for text in ["a", "a-b", "tcp-x-1", String(repeating: "z", count: 63)] {
                let stored = StoredName(kind: kind, name: try #require(Name(text)), identity: "i:\(text)")
                #expect(StoredName(stored.description) == stored)
                #expect(stored.description.hasPrefix("expose-\(kind.rawValue)-\(text)-"))
                #expect(ServiceMessage.store(stored.description) != nil)
                #expect(StoredName(kind: kind, name: stored.name, identity: "other") != stored)
            }
        }
        #expect(StoredName("expose-tcp-web-\(hash)")?.name.text == "web")
        for text in [
            "", "expose-", "expose-tcp-web", "expose-tcp-\(hash)", "expose-udp-web-\(hash)", "expose-tcp--\(hash)",
            "expose-tcp-web-\(hash.dropLast())", "expose-tcp-web-\(hash)0", "expose-tcp-web-\(hash.dropLast())x",
            "expose-tcp-a_b-\(hash)", "agents",
        ] { #expect(StoredName(text) == nil, "\(text)") }
    }

    @Test(
        "the gateway's status is one readable line",
        arguments: [
            (GatewayStatus(), "0 agents, 0 names, 0 streams"),
            (GatewayStatus(agents: 1, names: 1, streams: 1), "1 agent, 1 name, 1 stream"),
            (
                GatewayStatus(agents: 3, names: 5, streams: 12, waiting: 2),
                "3 agents, 5 names, 12 streams; 2 names of the previous run not yet restored"
            ),
            (GatewayStatus(isDraining: true, agents: 3, streams: 4, waiting: 2), "draining: 4 streams left"),
            (GatewayStatus(isDraining: true, streams: 1), "draining: 1 stream left"),
        ])
    func gatewayStatus(_ status: GatewayStatus, _ text: String) { #expect(status.description == text) }

    @Test(
        "the agent's status is one readable line",
        arguments: [
            (.connecting, nil, "connecting to gateway g.example:20000"),
            (.waiting, nil, "no link to gateway g.example:20000, retrying"),
            (.connected(names: 1), nil, "connected to gateway g.example:20000, 1 name exposed"),
            (.connected(names: 2), nil, "connected to gateway g.example:20000, 2 names exposed"),
            (.connected(names: 2), 1, "draining: 1 stream left"),
            (.waiting, 0, "draining: 0 streams left"),
        ] as [(AgentMachine.Progress, Int?, String)])
    func agentStatus(_ progress: AgentMachine.Progress, _ draining: Int?, _ text: String) {
        let gateway = HostPort(host: "g.example", port: 20_000)
        #expect(AgentStatus(gateway: gateway, progress: progress, draining: draining).description == text)
    }
}
