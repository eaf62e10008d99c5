import Glibc
import Logging
import Reactor
import Supervision
import Testing

/// A loop, the socket of a fake manager, and the client under test.
private final class Fixture {
    let loop: EventLoop
    let fake: FakeManager
    let manager: ServiceManager

    init(_ variables: [String: String] = [:]) throws {
        self.loop = try EventLoop()
        self.fake = try FakeManager()
        let name = "@" + String(decoding: self.fake.address.dropFirst(), as: UTF8.self)
        let environment = ServiceEnvironment(
            variables.merging(["NOTIFY_SOCKET": name]) { old, _ in old }, processID: getpid())
        self.manager = ServiceManager(
            loop: self.loop, environment: environment,
            logger: Logger(label: "", factory: { _ in SwiftLogNoOpLogHandler() }))
    }

    func finish() {
        self.manager.close()
        self.loop.close()
    }

    func turn(until condition: () -> Bool) -> Bool {
        let timer = LoopTimer(loop: self.loop) {}
        timer.start(after: 1, repeating: 1)
        defer { timer.close() }
        let deadline = self.loop.now + 10_000
        return self.loop.run { condition() || self.loop.now > deadline } && condition()
    }
}

@Suite("A service manager")
struct ServiceManagerTests {
    @Test("receives the state changes of the program")
    func life() throws {
        let fixture = try Fixture()
        defer { fixture.finish() }
        fixture.manager.started(status: "0 agents") { true }
        var order: [String] = []
        fixture.manager.reloading { order = fixture.fake.lines().flatMap { $0 } }
        // READY=1 of the start and RELOADING=1 were sent before the body ran.
        #expect(order.prefix(3) == ["READY=1", "STATUS=0 agents", "RELOADING=1"])
        let stamp = try #require(order.last.flatMap { UInt64($0.dropFirst("MONOTONIC_USEC=".count)) })
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        let now = UInt64(time.tv_sec) * 1_000_000 + UInt64(time.tv_nsec) / 1_000
        #expect(stamp <= now && now - stamp < 10_000_000)
        fixture.manager.stopping(status: "draining: 1 stream left")
        #expect(
            fixture.fake.lines() == [
                ["READY=1"], ["STOPPING=1", "EXTEND_TIMEOUT_USEC=15000000", "STATUS=draining: 1 stream left"],
            ])
    }

    @Test("receives a status at most once a second, and only if it changed")
    func status() throws {
        let fixture = try Fixture()
        defer { fixture.finish() }
        fixture.manager.setStatus("a")
        fixture.manager.setStatus("b")
        fixture.manager.setStatus("c")
        #expect(fixture.fake.lines() == [["STATUS=a"]])
        let first = fixture.loop.now
        var later: [[String]] = []
        #expect(
            fixture.turn {
                fixture.manager.tick()
                later += fixture.fake.lines()
                return !later.isEmpty
            })
        #expect(fixture.loop.now - first >= 1_000)
        fixture.manager.setStatus("c")
        fixture.manager.tick()
        #expect(later + fixture.fake.lines() == [["STATUS=c"]])
    }

    @Test("receives watchdog messages while the program is healthy")
    func watchdog() throws {
        let fixture = try Fixture(["WATCHDOG_USEC": "15000"])
        defer { fixture.finish() }
        var isWell = true
        var looks = 0
        fixture.manager.started(status: "") {
            looks += 1
            return isWell
        }
        _ = fixture.fake.lines()
        #expect(fixture.turn { looks >= 3 })
        #expect(fixture.fake.lines() == Array(repeating: ["WATCHDOG=1"], count: looks))
        isWell = false
        looks = 0
        #expect(fixture.turn { looks >= 3 })
        #expect(fixture.fake.lines() == [])
        isWell = true
        looks = 0
        #expect(fixture.turn { looks >= 1 })
        #expect(fixture.fake.lines().count == looks)
    }

    @Test("stores one descriptor per name")
    func store() throws {
        let fixture = try Fixture()
        defer { fixture.finish() }
        let first = try listeningSocket()
        let second = try listeningSocket()
        defer { for descriptor in [first, second] { Glibc.close(descriptor) } }
        #expect(fixture.manager.store([first], as: "expose-web"))
        let message = try #require(fixture.fake.receive())
        #expect(message.lines == ["FDSTORE=1", "FDNAME=expose-web"])
        let kept = try #require(message.descriptor)
        #expect(kept != first && inode(kept) == inode(first))
        Glibc.close(kept)
        #expect(fixture.manager.store([second], as: "expose-web"))
        #expect(fixture.fake.receive()?.lines == ["FDSTOREREMOVE=1", "FDNAME=expose-web"])
        let other = try #require(fixture.fake.receive()?.descriptor)
        #expect(inode(other) == inode(second))
        Glibc.close(other)
        fixture.manager.remove("expose-web")
        fixture.manager.remove("expose-web")
        fixture.manager.remove("never-stored")
        #expect(fixture.fake.lines() == [["FDSTOREREMOVE=1", "FDNAME=expose-web"]])
        fixture.manager.noteStored("came-back")
        fixture.manager.remove("came-back")
        #expect(fixture.fake.lines() == [["FDSTOREREMOVE=1", "FDNAME=came-back"]])
    }

    @Test("never receives more descriptors than its store holds")
    func fullStore() throws {
        let fixture = try Fixture(["FDSTORE": "1"])
        defer { fixture.finish() }
        let descriptor = try listeningSocket()
        defer { Glibc.close(descriptor) }
        #expect(fixture.manager.store([descriptor], as: "a"))
        #expect(!fixture.manager.store([descriptor], as: "b"))
        #expect(fixture.fake.lines() == [["FDSTORE=1", "FDNAME=a"]])
        fixture.manager.remove("a")
        #expect(fixture.manager.store([descriptor], as: "b"))
        #expect(fixture.fake.lines() == [["FDSTOREREMOVE=1", "FDNAME=a"], ["FDSTORE=1", "FDNAME=b"]])
    }

    @Test("may be absent")
    func absent() throws {
        let loop = try EventLoop()
        let manager = ServiceManager(
            loop: loop, environment: ServiceEnvironment(["WATCHDOG_USEC": "1000"], processID: 1),
            logger: Logger(label: "", factory: { _ in SwiftLogNoOpLogHandler() }))
        #expect(!manager.isPresent)
        manager.started(status: "") { true }
        manager.setStatus("a")
        #expect(!manager.store([0], as: "a"))
        var hasRun = false
        manager.reloading { hasRun = true }
        #expect(hasRun)
        manager.close()
        loop.close()
    }
}

@Suite("A notify socket")
struct NotifySocketTests {
    @Test(
        "a full socket queues messages in order, with their descriptors, but drops those that would be stale later")
    func busy() throws {
        let fake = try FakeManager()
        var complaints: [String] = []
        let socket = try #require(NotifySocket(address: fake.address) { complaints.append($0) })
        // The kernel queues a few messages for a receiver that does not read (net.unix.max_dgram_qlen).
        var taken = 0
        while taken < 100_000, socket.sendAtOnce(.watchdog) { taken += 1 }
        #expect(taken < 100_000)
        let original = try listeningSocket()
        let identity = inode(original)
        let message = try #require(ServiceMessage.store("late"))
        socket.send(message, with: original)
        Glibc.close(original)
        socket.send(.ready)
        #expect(!socket.sendAtOnce(.status("stale")))
        #expect(fake.lines() == Array(repeating: ["WATCHDOG=1"], count: taken))
        socket.flush()
        let late = try #require(fake.receive())
        #expect(late.lines == ["FDSTORE=1", "FDNAME=late"])
        let descriptor = try #require(late.descriptor)
        #expect(inode(descriptor) == identity)
        Glibc.close(descriptor)
        #expect(fake.lines() == [["READY=1"]])
        #expect(complaints.isEmpty)
    }

    @Test("the queue is bounded")
    func bounded() throws {
        let fake = try FakeManager()
        var complaints: [String] = []
        let socket = try #require(NotifySocket(address: fake.address) { complaints.append($0) })
        var taken = 0
        while taken < 100_000, socket.sendAtOnce(.watchdog) { taken += 1 }
        for _ in 0..<NotifySocket.maxWaiting + 5 { socket.send(.ready) }
        #expect(complaints.count == 1)
        var ready = 0
        while true {
            let lines = fake.lines()
            ready += lines.count { $0 == ["READY=1"] }
            if lines.isEmpty { break }
            socket.flush()
        }
        #expect(ready == NotifySocket.maxWaiting)
    }

    @Test("a vanished manager is reported once")
    func gone() throws {
        let address = try FakeManager().address
        var complaints: [String] = []
        let socket = try #require(NotifySocket(address: address) { complaints.append($0) })
        socket.send(.ready)
        socket.send(.stopping)
        #expect(!socket.sendAtOnce(.watchdog))
        #expect(complaints.count == 1)
    }
}

@Suite("Inherited sockets")
struct InheritedSocketsTests {
    /// Gives the descriptors consecutive numbers, as a service manager does. Returns the first.
    private func sideBySide(_ descriptors: [Int32]) throws -> Int32 {
        // Far above the other descriptors of this process.
        let first: Int32 = 900
        for (index, descriptor) in descriptors.enumerated() {
            let place = first + Int32(index)
            try #require(fcntl(place, F_GETFD) < 0)
            try #require(dup2(descriptor, place) == place)
            Glibc.close(descriptor)
        }
        return first
    }

    @Test("are taken once, by name, and not inherited by children; anything else that was passed is closed")
    func names() throws {
        let datagrams = socket(AF_INET, Int32(SOCK_DGRAM.rawValue), 0)
        let unconnected = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        let file = open("/dev/null", O_RDONLY)
        let first = try self.sideBySide([
            try listeningSocket(), datagrams, try listeningSocket(), unconnected, file, try listeningSocket(),
        ])
        let names = ["agents", "agents", "agents", "agents", "agents", "else", "not-there"]
        let sockets = InheritedSockets(names: names, first: first)
        #expect(sockets.problems.count == 4)
        for closed in [first + 1, first + 3, first + 4] { #expect(fcntl(closed, F_GETFD) < 0) }
        #expect(fcntl(first, F_GETFD) == FD_CLOEXEC)
        let agents = sockets.take("agents")
        #expect(agents.map(\.descriptor) == [first, first + 2])
        #expect(sockets.take("agents").isEmpty)
        #expect(sockets.closeRest() == ["else"])
        #expect(sockets.closeRest().isEmpty)
        #expect(fcntl(first + 5, F_GETFD) < 0)
        for socket in agents {
            #expect(fcntl(socket.descriptor, F_GETFD) == FD_CLOEXEC)
            Glibc.close(socket.descriptor)
        }
    }
}
