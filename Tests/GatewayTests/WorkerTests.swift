import Control
import GatewayCore
import Logging
import Metrics
import Reactor
import Relay
import Secure
import Settings
import TestSupport
import Testing
import Wire

@testable import Gateway

@Suite("A worker", .serialized, .timeLimit(.minutes(1)))
struct WorkerTests {
    private func echo(_ visitor: Connection, _ text: String, _ loop: EventLoop) {
        let before = visitor.received.count
        Array(text.utf8).withUnsafeBytes { _ = visitor.stream.write($0) }
        #expect(loop.run { visitor.received.count >= before + text.utf8.count })
        #expect(visitor.received.suffix(text.utf8.count) == Array(text.utf8)[...])
    }

    @Test("does nothing for an unauthenticated connection until the hub orders it")
    func waits() throws {
        let world = try WorkerFixture()
        let (agent, id) = try world.connect()
        world.wait { if case .greeted(id) = $0 { true } else { false } }
        // These orders answer other reports.
        world.worker.perform(.proceed(id))
        world.worker.perform(.turnAway(id, .ended(.denied, ""), .accessDenied))
        world.worker.perform(.tick(slept: false))
        // Another agent logs in, which takes several round trips.
        let (other, _) = try world.logIn("other")
        #expect(!world.reports.contains { if case .secured(id, _) = $0 { true } else { false } })
        #expect(agent.end == nil)
        world.worker.perform(.shakeHands(id, after: 0))
        // Repeating the order is harmless.
        world.worker.perform(.shakeHands(id, after: 0))
        world.wait { if case .login(id, _) = $0 { true } else { false } }
        world.finish(agent, other)
    }

    @Test("carries visitors of a name to its agent and back, and reports the end of a link in order")
    func life() throws {
        let world = try WorkerFixture()
        let backend = try EchoBackend(loop: world.loop, echoes: .atOnce)
        let (agent, id) = try world.logIn("alice")
        agent.backend = backend.listener.port
        agent.link.register([Register(exposure: 3, port: 0, name: "example")])
        let request = try world.first { if case .register(id, let register) = $0 { register } else { nil } }
        #expect(request.name == "example")
        let (name, port) = try world.open("example", "alice", at: id, number: 3)
        world.worker.perform(.answer(id, Registered(exposure: 3, code: .none, port: port, text: "here")))
        #expect(world.loop.run { agent.answers.first?.port == port })
        world.worker.perform(.watch(true))
        let visitor = try world.visit(port)
        self.echo(visitor, "hello", world.loop)
        #expect(agent.opened.map(\.exposure) == [3])
        let census = try world.census()
        #expect(census.streamsByLink == [id: 1] && census.streamsByName == [name: 1])
        #expect(census.streams.map(\.name) == ["example"] && census.figures.visitors == 1)
        // The stream continues without its listener, until it is cut.
        world.withdraw(name)
        self.echo(visitor, "still", world.loop)
        world.worker.perform(.cutStreams(id, number: 3))
        #expect(world.loop.run { visitor.error != nil })
        let closed = try world.first { if case .news(let news) = $0, news.event == .closed { news } else { nil } }
        #expect(closed.stream.name == "example" && closed.reason == "revoked")
        world.worker.perform(.end(id, Refusal(code: .revoked, text: "gone"), retryAfterSeconds: 0))
        #expect(world.loop.run { world.hasEnded(id) && agent.end != nil })
        let ends = world.reports.compactMap { report -> String? in
            switch report {
            case .ending(id): "ending"
            case .ended(id, _): "ended"
            case .emptied(id): "emptied"
            default: nil
            }
        }
        #expect(ends == ["ending", "ended", "emptied"])
        backend.forget()
        backend.listener.close()
        world.finish(agent)
    }

    @Test("moves a name to another link with its listener open, while open streams stay on their link")
    func move() throws {
        let world = try WorkerFixture()
        let backend = try EchoBackend(loop: world.loop, echoes: .atOnce)
        let (first, firstID) = try world.logIn("alice")
        let (second, secondID) = try world.logIn("alice")
        for agent in [first, second] { agent.backend = backend.listener.port }
        let (name, port) = try world.open("example", "alice", at: firstID, number: 1)
        let early = try world.visit(port)
        self.echo(early, "early", world.loop)
        world.worker.perform(.attach(name, secondID, number: 9))
        let late = try world.visit(port)
        self.echo(late, "late", world.loop)
        self.echo(early, "again", world.loop)
        #expect(first.opened.map(\.exposure) == [1] && second.opened.map(\.exposure) == [9])
        for visitor in [early, late] { visitor.stream.close() }
        backend.forget()
        backend.listener.close()
        world.finish(first, second)
    }

    @Test("leaves visitors in the backlog until the name is published")
    func unpublished() throws {
        let world = try WorkerFixture()
        let backend = try EchoBackend(loop: world.loop, echoes: .atOnce)
        let (agent, id) = try world.logIn("alice")
        agent.backend = backend.listener.port
        let socket = try ListenerSocket(address: .loopback4(port: 0))
        let name = ExposureID(number: 77)
        world.worker.perform(
            .open(
                OpenedName(
                    id: name, name: try #require(Name("later")), identity: AgentIdentity(id: "alice"),
                    sockets: [socket])))
        world.worker.perform(.attach(name, id, number: 1))
        let visitor = try world.visit(try #require(socket.address).port)
        // The agent could accept the visitor: it accepts a later one of another name.
        let (_, other) = try world.open("other", "alice", at: id, number: 2)
        let later = try world.visit(other)
        self.echo(later, "first", world.loop)
        #expect(agent.opened.map(\.exposure) == [2] && visitor.error == nil)
        world.worker.perform(.publish(name))
        self.echo(visitor, "here", world.loop)
        for connection in [visitor, later] { connection.stream.close() }
        socket.shutDown()
        world.worker.perform(.withdraw(name))
        backend.forget()
        backend.listener.close()
        world.finish(agent)
    }

    @Test("when draining, ends a link without streams at once, and a link with streams after them")
    func drain() throws {
        let world = try WorkerFixture()
        let backend = try EchoBackend(loop: world.loop, echoes: .atOnce)
        let (idle, idleID) = try world.logIn("alice")
        let (busy, busyID) = try world.logIn("bob")
        busy.backend = backend.listener.port
        let (_, port) = try world.open("example", "bob", at: busyID, number: 1)
        let visitor = try world.visit(port)
        self.echo(visitor, "one", world.loop)
        world.worker.perform(.drain)
        #expect(world.loop.run { idle.end != nil })
        self.echo(visitor, "two", world.loop)
        #expect(busy.end == nil)
        visitor.stream.close()
        backend.forget()
        #expect(
            world.loop.run {
                world.worker.perform(.tick(slept: false))
                return busy.end != nil
            })
        #expect(world.loop.run { world.hasEnded(idleID) && world.hasEnded(busyID) })
        backend.listener.close()
        world.finish(idle, busy)
    }

    @Test("closes the connections of a banned network, and counts them")
    func ban() throws {
        let world = try WorkerFixture()
        let (agent, id) = try world.logIn("alice")
        let network = try Network("127.0.0.0/8", place: "")
        var bans = BanList()
        #expect(bans.add(network, until: nil) == true)
        world.worker.perform(.ban(bans))
        world.worker.perform(.ask(1, .cut(network)))
        let cut = try world.first {
            if case .answer(1, .cut(let links, let streams)) = $0 { (links, streams) } else { nil }
        }
        #expect(cut == (1, 0))
        #expect(world.loop.run { world.hasEnded(id) })
        // Visitors from the network are refused from now on.
        let (other, otherID) = try world.logIn("bob")
        let (_, port) = try world.open("example", "bob", at: otherID, number: 1)
        var visitor: Connection?
        let connector = Connector.connect(loop: world.loop, to: .host("127.0.0.1", port: port), timeout: 5_000) {
            // The visitor may be reset before it learns that it was connected.
            if case .success(let stream) = $0 { visitor = Connection(stream) }
        }
        #expect(world.loop.run { world.worker.metrics.figures.visitorResults[.banned] == 1 })
        #expect(other.opened.isEmpty)
        connector.cancel()
        visitor?.stream.close()
        world.finish(agent, other)
    }

    @Test("ignores orders about links and names that are gone")
    func gone() throws {
        let world = try WorkerFixture()
        let (agent, id) = try world.logIn("alice")
        agent.link.close(.ended(.none, ""))
        #expect(world.loop.run { world.hasEnded(id) })
        let count = world.reports.count
        let name = ExposureID(number: 5)
        let allowance = LinkAllowance(streams: 1, names: 1, agentStreams: nil)
        let refusal = Refusal(code: .drain, text: "")
        for link in [id, 99] {
            for order: WorkerOrder in [
                .proceed(link), .turnAway(link, .ended(.denied, ""), .accessDenied), .shakeHands(link, after: 5),
                .welcome(link, AgentIdentity(id: "x"), allowance, Welcome(linkID: link, maximumNames: 1)),
                .allow(link, allowance), .answer(link, Registered(exposure: 1, code: .none, port: 1, text: "")),
                .end(link, refusal, retryAfterSeconds: 0), .close(link, .ended(.denied, "")),
                .cutStreams(link, number: 1), .cutDeliveries(link), .attach(name, link, number: 1),
                .probe(name, link), .publish(name), .withdraw(name),
            ] {
                world.worker.perform(order)
            }
        }
        world.worker.perform(.tick(slept: true))
        #expect(world.reports.count == count)
        #expect(try world.census().streamsByLink.isEmpty)
        world.finish(agent)
    }

    @Test("reports a name whose listener is unusable, unless the hub has shut it down")
    func unusable() throws {
        let world = try WorkerFixture()
        let (agent, id) = try world.logIn("alice")
        let (closed, ended) = (
            try ListenerSocket(address: .loopback4(port: 0)), try ListenerSocket(address: .loopback4(port: 0))
        )
        closed.close()
        ended.shutDown()
        for (number, socket) in [(71, closed), (72, ended)] {
            let name = ExposureID(number: UInt64(number))
            world.worker.perform(
                .open(
                    OpenedName(
                        id: name, name: try #require(Name("n\(number)")), identity: AgentIdentity(id: "alice"),
                        sockets: [socket])))
            world.worker.perform(.attach(name, id, number: UInt16(number)))
        }
        let reported = world.reports.compactMap { if case .notOpened(let name) = $0 { name.number } else { nil } }
        #expect(reported == [71])
        #expect(world.log.lines(at: .error).count == 1)
        for number in [71, 72] { world.worker.perform(.withdraw(ExposureID(number: UInt64(number)))) }
        world.finish(agent)
    }
}
