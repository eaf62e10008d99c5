import AgentCore
import Reactor
import Secure
import TestSupport
import Testing
import Wire

@testable import Agent

@Suite("An agent whose connection breaks", .serialized, .timeLimit(.minutes(1)))
struct ResumptionTests {
    /// An agent with the name `one` and a visitor that gets one byte echoed.
    private func start() throws -> (AgentFixture, Connection) {
        let stand = try AgentFixture(["one"])
        stand.gateway.resumes = true
        try stand.start()
        #expect(stand.wait { stand.urls != nil })
        let visitor = try stand.gateway.visit("one", at: 0)
        self.send([1], by: visitor)
        #expect(stand.wait { visitor.received == [1] })
        return (stand, visitor)
    }

    private func send(_ bytes: [UInt8], by visitor: Connection) {
        _ = bytes.withUnsafeBytes { visitor.stream.write($0) }
    }

    @Test("continues its link on a new connection, with names and streams")
    func resumes() throws {
        let (stand, visitor) = try self.start()
        for round in 1...3 {
            stand.gateway.breakConnection(of: 0)
            // The visitor does not know.
            self.send([UInt8(round)], by: visitor)
            #expect(stand.wait { visitor.received.count == round + 1 })
        }
        #expect(visitor.received == [1, 1, 2, 3])
        #expect(stand.gateway.resumed.map(\.resume.epoch) == [1, 2, 3])
        #expect(stand.gateway.logins.count == 1 && stand.gateway.names(of: 0) == ["one"])
        #expect(stand.urls != nil && stand.hasLine("1 stream kept"))
        stand.finish(visitor)
        let events = stand.writtenEvents().filter { $0.contains("interrupted") || $0.contains("resumed") }
        #expect(events.count == 6, "\(events)")
    }

    @Test("registers and gives up names while it has no connection")
    func reloads() throws {
        let (stand, visitor) = try self.start()
        stand.gateway.breakConnection(of: 0)
        try stand.reload(["one", "two"])
        #expect(stand.wait { stand.gateway.names(of: 0) == ["one", "two"] })
        #expect(stand.gateway.resumed.count == 1 && stand.gateway.logins.count == 1)
        stand.finish(visitor)
    }

    @Test("logs in if the gateway does not have the link any more, and resets its streams")
    func forgotten() throws {
        let (stand, visitor) = try self.start()
        stand.gateway.resumption = .refuse
        stand.gateway.breakConnection(of: 0)
        #expect(stand.wait { stand.gateway.names(of: 1) == ["one"] })
        #expect(stand.gateway.logins.count == 2)
        #expect(stand.wait { stand.connections(0)[0].error == .connectionReset })
        #expect(stand.hasLine("the gateway does not have the link any more"))
        stand.finish(visitor)
    }

    @Test("dials again with the next epoch if the new connection breaks before the answer")
    func breaksAgain() throws {
        let (stand, visitor) = try self.start()
        stand.gateway.resumption = .close
        stand.gateway.breakConnection(of: 0)
        #expect(stand.wait { stand.gateway.resumed.count == 2 })
        stand.gateway.resumption = .accept
        self.send([2], by: visitor)
        #expect(stand.wait { visitor.received == [1, 2] })
        #expect(stand.gateway.resumed.map(\.resume.epoch).sorted() == Array(1...UInt32(stand.gateway.resumed.count)))
        #expect(stand.gateway.logins.count == 1)
        stand.finish(visitor)
    }

    @Test("shows no proof to a gateway with another key")
    func otherKey() throws {
        let (stand, visitor) = try self.start()
        stand.gateway.identity = try Identity.selfSigned(commonName: "other").pem
        stand.gateway.breakConnection(of: 0)
        #expect(stand.wait { stand.agent.exit == .wrongGatewayKey })
        #expect(stand.gateway.resumed.isEmpty && stand.gateway.logins.count == 1)
        stand.finish(visitor)
    }

    @Test("logs in at a gateway that cannot resume links any more")
    func olderGateway() throws {
        let (stand, visitor) = try self.start()
        stand.gateway.offersResumption = false
        stand.gateway.breakConnection(of: 0)
        #expect(stand.wait { stand.gateway.names(of: 1) == ["one"] })
        #expect(stand.gateway.resumed.isEmpty)
        stand.finish(visitor)
    }

    @Test("stops while it has no connection")
    func stops() throws {
        let (stand, visitor) = try self.start()
        stand.gateway.leave()
        stand.gateway.breakConnection(of: 0)
        #expect(stand.wait { stand.hasLine("retrying in") })
        stand.agent.stop()
        #expect(stand.wait { stand.agent.exit == .stopped && stand.connections(0)[0].error != nil })
        stand.finish(visitor)
    }

    @Test("resumes nothing with --once")
    func once() throws {
        let stand = try AgentFixture(["one"], once: true)
        stand.gateway.resumes = true
        try stand.start()
        #expect(stand.wait { stand.urls != nil })
        stand.gateway.breakConnection(of: 0)
        #expect(stand.wait { stand.agent.exit == .unavailable })
        stand.finish()
    }
}
