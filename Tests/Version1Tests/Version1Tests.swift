import Testing
import Tunnel
import Version1
import Wire

@Suite("Version 1, the gateway's side")
struct GatewaySideTests {
    @Test("a login, a registration and a visitor work byte by byte")
    func session() throws {
        let end = End(.gateway)
        #expect(end.phase == .awaitingLogin)
        end.feedSlowly(frame(login, "secret"))
        #expect(end.events == [.login(.version1(token: "secret"))])
        end.link.acceptLogin(Welcome(linkID: 1, maximumNames: 16), now: 0)
        #expect(end.output() == frame(ok))
        end.feedSlowly(frame(register, 7, Array("example".utf8)))
        #expect(end.events.last == .register(Register(exposure: 7, port: 0, name: "example")))
        end.link.answerRegister(Registered(exposure: 7, code: .none, port: 1, text: ""))
        #expect(end.output() == frame(ok))
        #expect(!end.canOpen)
        end.feedSlowly(frame(finishRegister))
        #expect(end.events.last == .ready)
        #expect(end.canOpen)

        let key = try #require(end.open())
        #expect(end.output() == [], "the agent hears of a stream with its first bytes")
        end.send(key, [1, 2, 3])
        #expect(end.output() == frame(payload, 7 << 16 | 1, [1, 2, 3]))
        end.feedSlowly(frame(payload, 7 << 16 | 1, [4, 5]) + frame(payload, 7 << 16 | 1))
        #expect(end.data[key] == [4, 5])
        end.feedSlowly(frame(close, 7 << 16 | 1))
        #expect(end.ended == [key])
        #expect(end.finish(key))
        end.link.release(key)
        #expect(end.output() == [], "a stream that the agent has closed is not closed again")
        #expect(end.streamCount == 0)
        #expect(end.violations.isEmpty)
    }

    @Test("a session has the same result wherever it is split")
    func splits() {
        let bytes = frame(payload, 1, [UInt8](repeating: 9, count: 300)) + frame(payload, 99, [1]) + frame(close, 1)
        for at in 0...bytes.count {
            let end = readyGateway()
            let key = end.open()
            end.feed(Array(bytes[..<at]))
            end.feed(Array(bytes[at...]))
            #expect(key.flatMap { end.data[$0] } == [UInt8](repeating: 9, count: 300))
            #expect(end.ended.count == 1)
            #expect(end.violations.isEmpty)
        }
    }

    /// Frames that an agent must not send, by stage of the session.
    private static let forbidden: [(stage: Int, kinds: [UInt8])] = [
        (0, [ok, error, register, finishRegister, payload, close, terminate]),
        (1, [ok, error, register, finishRegister, payload, close, terminate, login]),
        (2, [ok, error, finishRegister, payload, close, terminate, login]),
        (3, [ok, error, register, finishRegister, payload, close, terminate, login]),
        (4, [ok, error, register, payload, close, terminate, login]),
        (5, [ok, error, register, finishRegister, terminate, login]),
    ]

    private func gateway(at stage: Int) -> End {
        let end = End(.gateway)
        if stage >= 1 { end.feed(frame(login, "t")) }
        if stage >= 2 { end.link.acceptLogin(Welcome(linkID: 1, maximumNames: 1), now: 0) }
        if stage >= 3 { end.feed(frame(register, "n")) }
        if stage >= 4 { end.link.answerRegister(Registered(exposure: 0, code: .none, port: 1, text: "")) }
        if stage >= 5 { end.feed(frame(finishRegister)) }
        _ = end.output()
        return end
    }

    @Test("a frame at the wrong time ends the link", arguments: forbidden.map(\.stage))
    func wrongTime(_ stage: Int) throws {
        for kind in try #require(Self.forbidden.first { $0.stage == stage }).kinds + Array(8...255) {
            let end = gateway(at: stage)
            // The header alone is sufficient.
            end.feed(Array(frame(kind, 0, [65]).prefix(7)))
            #expect(end.violations.count == 1, "kind \(kind)")
            #expect(end.phase == .closed)
            #expect(end.output().first == error)
        }
    }

    @Test("refusals have the texts of the original")
    func words() {
        func answer(_ stage: Int, _ bytes: [UInt8]) -> [UInt8] {
            let end = gateway(at: stage)
            end.feed(bytes)
            return end.output()
        }
        #expect(answer(0, frame(register, "n")) == frame(error, "received unexpected message"))
        #expect(answer(2, frame(finishRegister)) == frame(error, "missing name registration"))
        #expect(answer(4, frame(register, "n")) == frame(error, "only one name registration is allowed"))
        #expect(answer(5, frame(register, "n")) == frame(error, "only one name registration is allowed"))

        let refused = gateway(at: 1)
        refused.link.goAway(.loginRefused, retryAfterSeconds: 0, text: "the login was refused")
        #expect(refused.output() == frame(error, "authentication error: invalid token"))
        let nameless = gateway(at: 3)
        nameless.link.answerRegister(Registered(exposure: 0, code: .nameNotAllowed, port: 0, text: "no"))
        #expect(nameless.output() == frame(error, "not authorized to use this domain"))
        #expect(nameless.tick().verdict == .close(.nameNotAllowed))
        let taken = gateway(at: 3)
        taken.link.answerRegister(Registered(exposure: 0, code: .nameTaken, port: 0, text: "another agent has it"))
        #expect(taken.output() == frame(error, "another agent has it"))
    }

    @Test("a login of 4 KiB is accepted, and a longer one refused by its header")
    func loginSize() {
        let end = End(.gateway)
        end.feed(frame(login, 0, [UInt8](repeating: 65, count: 4_096)))
        #expect(end.events.count == 1 && end.violations.isEmpty)
        let other = End(.gateway)
        other.feed(Array(frame(login, 0, [UInt8](repeating: 65, count: 4_097)).prefix(7)))
        #expect(other.violations.count == 1)
        let binary = End(.gateway)
        binary.feed(frame(login, 0, [0xFF]))
        #expect(binary.violations.count == 1)
    }

    @Test("the agent has 15 s for each of its steps of the login", arguments: [0, 2, 4])
    func loginDeadline(_ stage: Int) {
        let end = gateway(at: stage)
        end.now = 14_999
        #expect(end.tick().verdict == .none)
        end.now = 15_000
        #expect(end.tick().verdict == .close(.handshakeTimeout))
    }

    @Test("payloads may have 0 to 65,535 bytes; unknown streams are ignored")
    func sizes() throws {
        let end = readyGateway()
        let key = try #require(end.open())
        let atMost = (0..<65_535).map { UInt8(truncatingIfNeeded: $0 &* 7) }
        end.feed(frame(payload, 1) + frame(payload, 2, atMost) + frame(payload, 1, atMost) + frame(close, 2))
        #expect(Bool(end.data == [key: atMost]))
        #expect(end.ended.isEmpty && end.violations.isEmpty)
        end.send(key, atMost + atMost)
        #expect(Bool(end.output() == frame(payload, 1, atMost) + frame(payload, 1, atMost)))
    }

    @Test("stream IDs are used in turn, and again only after all others")
    func ids() throws {
        let end = readyGateway(registration: 3)
        func use() throws -> UInt32 {
            let key = try #require(end.open())
            end.send(key, [1])
            let bytes = end.output()
            end.link.release(key)
            #expect(Array(end.output().prefix(1)) == [close])
            return bytes[1...4].reduce(0) { $0 << 8 | UInt32($1) }
        }
        let first = try (1...65_535).map { _ in try use() }
        #expect(Set(first).count == 65_535)
        #expect(first.allSatisfy { $0 >> 16 == 3 && $0 & 0xFFFF != 0 })
        #expect(try (1...65_535).map { _ in try use() } == first)
        #expect(end.streamCount == 0)
    }

    @Test("Close for a visitor that sends no more waits for the answer")
    func halfClose() throws {
        let end = readyGateway()
        let key = try #require(end.open())
        end.send(key, [1])
        #expect(!end.finish(key))
        #expect(end.output() == frame(payload, 1, [1]))
        end.now = 9_999
        #expect(end.tick().expired.isEmpty)
        end.feed(frame(payload, 1, [2]))
        end.now = 10_998
        #expect(end.tick().expired.isEmpty, "the answer has begun")
        end.now = 10_999
        let expired = end.tick().expired
        #expect(expired.map(\.key) == [key] && expired.map(\.expiry) == [.finish])
        #expect(end.output() == frame(close, 1))
        end.feed(frame(payload, 1, [3]))
        #expect(end.data[key] == [2], "what comes after Close is too late")
    }

    @Test("Close for a visitor whose answer does not begin is sent after 10 s")
    func halfCloseUnanswered() throws {
        let end = readyGateway()
        let key = try #require(end.open())
        end.feed(frame(payload, 1, [9]))
        end.send(key, [1])
        _ = end.finish(key)
        end.now = 9_999
        #expect(end.tick().expired.isEmpty, "bytes before the request do not answer it")
        end.now = 10_000
        #expect(end.tick().expired.map(\.expiry) == [.finish])
    }

    @Test("the agent's Close after a half-close ends the stream in order at once")
    func halfCloseAnswered() throws {
        let end = readyGateway()
        let key = try #require(end.open())
        end.send(key, [1])
        _ = end.finish(key)
        _ = end.output()
        end.feed(frame(payload, 1, [2]) + frame(close, 1))
        #expect(end.data[key] == [2] && end.ended == [key])
        end.link.release(key)
        #expect(end.output() == [])
    }

    @Test("a visitor that leaves without sending anything causes no frames")
    func silentVisitor() throws {
        let end = readyGateway()
        let key = try #require(end.open())
        #expect(end.finish(key), "the edge can close at once")
        end.link.release(key)
        let other = try #require(end.open())
        end.link.reset(other, .aborted)
        end.link.release(other)
        #expect(end.output() == [])
    }

    @Test("a visitor that stays after the agent's Close is closed in order")
    func lingeringVisitor() throws {
        let end = readyGateway()
        let key = try #require(end.open())
        end.send(key, [1])
        _ = end.output()
        end.feed(frame(close, 1))
        #expect(end.allowance(key) > 0)
        end.send(key, [2])
        #expect(end.output() == [], "the peer has closed the stream")
        end.now = 4_999
        #expect(end.tick().expired.isEmpty)
        end.now = 5_000
        #expect(end.tick().expired.map(\.expiry) == [.finish])
    }

    @Test("when the link is full, the visitor silent for longest makes room, not one that has sent a request")
    func silentVisitors() throws {
        var limits = Version1Limits()
        limits.maximumStreams = 3
        let end = readyGateway(limits: limits)
        let asked = try #require(end.open())
        end.send(asked, [1])
        _ = end.finish(asked)
        end.now = 1
        let silent = try #require(end.open())
        end.now = 2
        let other = try #require(end.open())
        _ = end.output()
        #expect(end.makeRoom() == silent)
        #expect(end.output() == [], "the agent does not know of it")
        #expect(end.open() != nil)
        #expect(end.makeRoom() == other)
    }

    @Test("when the link is full, a stream that is probably done makes room")
    func makesRoom() throws {
        var limits = Version1Limits()
        limits.maximumStreams = 4
        let end = readyGateway(limits: limits)
        let keys = try (0..<4).map { _ in try #require(end.open()) }
        #expect(end.isFull)
        for (index, key) in keys.enumerated() { end.send(key, [UInt8(index)]) }
        _ = end.output()
        end.now = 10
        _ = end.finish(keys[0])
        end.now = 11
        _ = end.finish(keys[1])
        end.feed(frame(payload, 2, [1]))
        // A stream with an answer makes room before one without.
        #expect(end.makeRoom() == keys[1])
        #expect(end.output() == frame(close, 2))
        #expect(!end.isFull)
        end.send(try #require(end.open()), [1])
        #expect(end.makeRoom() == keys[0])
        end.send(try #require(end.open()), [1])
        #expect(end.isFull && end.makeRoom() == nil)
        end.feed(frame(close, 3))
        #expect(!end.isFull, "what the agent has closed takes no room")
        end.send(try #require(end.open()), [1])
        #expect(end.makeRoom() == nil)
        #expect(end.open() == nil)
    }

    @Test("while the link's socket is full, edges wait, and are then resumed in turn")
    func congestion() throws {
        let end = readyGateway()
        let keys = try (0..<3).map { _ in try #require(end.open()) }
        end.link.congestion(true, now: 0)
        for key in keys + keys { #expect(end.allowance(key) == 0) }
        #expect(end.nextResumable() == nil)
        end.link.congestion(false, now: 0)
        #expect(keys.map { _ in end.nextResumable() } == keys)
        #expect(end.nextResumable() == nil)
        // Each has its turn, even if the first has filled the socket again.
        end.link.congestion(true, now: 0)
        let turns = keys.map { end.allowance($0) }
        #expect(turns.allSatisfy { $0 == turns[0] && $0 >= 16_384 && $0 <= 65_536 })
        end.send(keys[0], [UInt8](repeating: 1, count: turns[0]))
        #expect(end.allowance(keys[0]) == 0)
        end.send(keys[1], [1])
        #expect(end.allowance(keys[1]) == turns[0] - 1)
        end.link.congestion(false, now: 0)
        #expect(end.allowance(keys[2]) == turns[0], "other streams wait, so each has one turn")
        #expect(end.nextResumable() == keys[0])
        end.link.congestion(true, now: 1_000)
        end.now = 120_999
        #expect(end.tick().verdict == .none)
        end.now = 121_000
        #expect(end.tick().verdict == .close(.stalled))
    }

    @Test("draining opens no streams and lets the open ones finish")
    func drain() throws {
        let end = readyGateway()
        let key = try #require(end.open())
        end.send(key, [1])
        _ = end.output()
        end.link.goAway(.drain, retryAfterSeconds: 1, text: "bye")
        #expect(end.output() == [] && end.phase == .leaving)
        #expect(end.open() == nil)
        end.feed(frame(payload, 1, [5]))
        #expect(end.data[key] == [5])
    }
}
