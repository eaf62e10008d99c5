import GatewayCore
import Modules
import Reactor
import Relay
import Secure
import Settings
import Testing
import Wire

@testable import Gateway

@Suite("Agent sessions of the hub")
struct AgentSessionsTests {
    @Test("make room for one connection per ending link")
    func room() throws {
        let hub = try HubFixture(descriptors: 192)
        let atMost = hub.agents.parts.plan.links
        let peer = try #require(SocketAddress("192.0.2.1", port: 1))
        let sessions = (0..<atMost).map { _ in
            hub.agents.add(peer, Source(key: peer.source), isVersion1: false)
        }
        #expect(!hub.agents.hasRoom(), "nothing ends")
        hub.agents.ending(sessions[0])
        hub.agents.ending(sessions[1])
        #expect(hub.agents.hasRoom() && hub.agents.hasRoom())
        // Their connections are still being closed.
        #expect(!hub.agents.hasRoom())
        let closed = hub.takeOrders().compactMap { if case .close(let id, _) = $0 { id } else { nil } }
        #expect(Set(closed) == [sessions[0].id, sessions[1].id])
        hub.finish()
    }

    @Test("do not authenticate a connection that was closed to make room")
    func evicted() throws {
        let hub = try HubFixture(descriptors: 192)
        hub.authenticator.verdict = .granted(LoginGrant(identity: "alice"))
        let first = try #require(try hub.admit("192.0.2.1"))
        var number = 2
        while !hub.hasOrders {
            _ = try #require(try hub.admit("192.0.2.\(number)"))
            number += 1
        }
        guard case .close(first.id, _) = hub.takeOrders().first else { return _ = Issue.record("the slowest goes") }
        // These reports were already on their way.
        hub.agents.greeted(first)
        hub.logIn(first)
        hub.agents.introduced(first, try #require(SocketAddress("192.0.2.200", port: 1)))
        #expect(hub.takeOrders().isEmpty && hub.authenticator.requests.isEmpty)
        hub.finish()
    }

    @Test("forget a connection that could not be given to a worker")
    func removed() throws {
        let hub = try HubFixture()
        for _ in 0..<100 { hub.agents.remove(try #require(try hub.admit("192.0.2.1"))) }
        #expect(hub.agents.admission.strangerCount == 0 && hub.takeOrders().isEmpty)
        hub.finish()
    }

    @Test("welcome an agent with its limits")
    func welcome() throws {
        let hub = try HubFixture()
        hub.authenticator.verdict = .granted(
            LoginGrant(identity: "alice", limits: AgentLimits(names: 3, streams: 5)))
        let session = try #require(try hub.admit("192.0.2.1"))
        hub.agents.greeted(session)
        hub.agents.secured(session, pin: "sha256/x")
        hub.logIn(session)
        let orders = hub.takeOrders()
        guard case .shakeHands(session.id, after: 0) = orders.first,
            case .welcome(session.id, let identity, let allowance, let welcome) = orders.last
        else { return _ = Issue.record("\(orders)") }
        #expect(identity.id == "alice" && welcome.maximumNames == 3)
        #expect(allowance == LinkAllowance(streams: 5, names: 3, agentStreams: 5))
        #expect(hub.authenticator.requests.map(\.certificatePin) == ["sha256/x"])
        #expect(hub.agents.openSessions.map(\.id) == [session.id])
        hub.finish()
    }

    @Test("delay the answer to a refused login, and throttle its source")
    func refused() throws {
        let hub = try HubFixture()
        hub.authenticator.verdict = .refused(.loginRefused, reason: "wrong")
        for _ in 0..<4 {
            let session = try #require(try hub.admit("192.0.2.1"))
            hub.agents.greeted(session)
            hub.logIn(session)
            #expect(
                !hub.takeOrders().contains { if case .end = $0 { true } else { false } }, "it learns how long that took"
            )
            #expect(hub.loop.run { hub.hasOrders })
            guard case .end(session.id, let refusal, _) = hub.takeOrders().first else {
                return _ = Issue.record("no answer")
            }
            #expect(refusal.code == .loginRefused && refusal.text == "the login was refused")
            hub.agents.ended(session, .ended(.loginRefused, ""))
        }
        // Repeating the same login costs little. With two failures of another kind the penalty is enforced.
        for _ in 0..<2 { hub.agents.ended(try #require(try hub.admit("192.0.2.1")), .otherProtocol(firstByte: 0)) }
        let session = try #require(try hub.admit("192.0.2.1"))
        hub.agents.greeted(session)
        guard case .shakeHands(session.id, let wait) = hub.takeOrders().last else { return _ = Issue.record("no wait") }
        #expect(wait > 0)
        hub.finish()
    }

    @Test("open no more names for a kicked agent")
    func kicked() throws {
        let hub = try HubFixture()
        hub.authenticator.verdict = .granted(LoginGrant(identity: "alice"))
        let session = try #require(try hub.admit("192.0.2.1"))
        hub.logIn(session)
        hub.names.register(session.id, Register(exposure: 1, port: 0, name: "one"))
        #expect(hub.takeOrders().contains { if case .open = $0 { true } else { false } })
        #expect(hub.names.held.map(\.name.text) == ["one"])
        hub.agents.kick(session)
        hub.names.register(session.id, Register(exposure: 2, port: 0, name: "two"))
        let orders = hub.takeOrders()
        #expect(orders.contains { if case .withdraw = $0 { true } else { false } })
        #expect(!orders.contains { if case .open = $0 { true } else { false } })
        #expect(hub.names.held.isEmpty)
        hub.finish()
    }

    @Test("take a name from its agent if no worker can use the listener")
    func notOpened() throws {
        let hub = try HubFixture()
        hub.authenticator.verdict = .granted(LoginGrant(identity: "alice"))
        let session = try #require(try hub.admit("192.0.2.1"))
        hub.logIn(session)
        hub.names.register(session.id, Register(exposure: 1, port: 0, name: "one"))
        _ = hub.takeOrders()
        let name = try #require(hub.names.held.first)
        let socket = try #require(name.listeners.all.first)
        hub.names.revoke(name.id, .registrarFailed, reason: "its listener is unusable")
        #expect(socket.isShut && hub.names.held.isEmpty)
        let answers = hub.takeOrders().compactMap { if case .answer(_, let answer) = $0 { answer.code } else { nil } }
        #expect(answers.last == .registrarFailed)
        // The port is free at once.
        try ListenerSocket(address: try #require(socket.address)).close()
        hub.finish()
    }

    @Test("turn away an agent whose address behind a proxy is banned")
    func banned() throws {
        let hub = try HubFixture()
        let session = try #require(try hub.admit("192.0.2.1"))
        #expect(hub.agents.ban(try Network("198.51.100.0/24", place: ""), until: nil) == true)
        _ = hub.takeOrders()
        hub.agents.introduced(session, try #require(SocketAddress("198.51.100.7", port: 1)))
        guard case .turnAway(session.id, _, .accessDenied) = hub.takeOrders().first else {
            return _ = Issue.record("it was admitted")
        }
        let other = try #require(try hub.admit("192.0.2.1"))
        hub.agents.introduced(other, try #require(SocketAddress("203.0.113.7", port: 1)))
        guard case .proceed(other.id) = hub.takeOrders().first else { return _ = Issue.record("it waits") }
        #expect(other.label.proxy == SocketAddress("192.0.2.1", port: 4_000))
        hub.finish()
    }
}
