import Testing
import Tunnel
import Version1
import Wire

@Suite("Version 1, the agent's side")
struct AgentSideTests {
    private func opened(_ end: End) -> [StreamKey] {
        end.events.compactMap { if case .opened(let key, _) = $0 { key } else { nil } }
    }

    @Test("logs in, registers, and connects at the first bytes of a stream", arguments: [false, true])
    func session(isSlow: Bool) throws {
        let end = End(.agent)
        func feed(_ bytes: [UInt8]) { isSlow ? end.feedSlowly(bytes) : end.feed(bytes) }
        end.link.login(
            Login(method: .token, instanceKey: [UInt8](repeating: 0, count: 32), run: 0, token: "secret"))
        #expect(end.output() == frame(login, "secret"))
        feed(frame(ok))
        #expect(end.events == [.welcomed(Welcome(linkID: 0, maximumNames: 1))])
        end.link.register(Register(exposure: 0, port: 0, name: "example"))
        #expect(end.output() == frame(register, "example"))
        feed(frame(ok))
        #expect(end.output() == frame(finishRegister))
        #expect(end.events.last == .registered(Registered(exposure: 0, code: .none, port: 0, text: "")))

        feed(frame(payload, 0x8269, [1, 2]) + frame(payload, 0x8269, [3]))
        let key = try #require(opened(end).first)
        #expect(opened(end).count == 1)
        #expect(end.data[key] == [1, 2, 3])
        end.send(key, [4])
        #expect(end.output() == frame(payload, 0x8269, [4]))
        #expect(end.finish(key), "the backend's end is the stream's")
        #expect(end.output() == frame(close, 0x8269))
    }

    @Test("a refusal ends the link; the two refusals of the original are final")
    func refusals() {
        func refused(_ end: End, _ text: String) -> LinkEvent? {
            end.feed(frame(error, text))
            #expect(end.phase == .closed)
            return end.events.last
        }
        #expect(
            refused(End(.agent), "authentication error: invalid token")
                == .goAway(GoAway(code: .loginRefused, text: "authentication error: invalid token")))
        let registering = End(.agent)
        registering.feed(frame(ok))
        registering.link.register(Register(exposure: 0, port: 0, name: "example"))
        registering.feed(frame(error, "not authorized to use this domain") + frame(ok))
        let text = "not authorized to use this domain"
        #expect(
            registering.events.last
                == .registered(Registered(exposure: 0, code: .nameNotAllowed, port: 0, text: text)))
        #expect(registering.tick().verdict == .close(.nameNotAllowed))
        #expect(refused(readyAgent(), "odd") == .goAway(GoAway(code: .denied, text: "odd")))
        let end = readyAgent()
        end.feed(frame(terminate))
        #expect(end.events == [.goAway(GoAway(code: .none, text: "the gateway ends the connection"))])
    }

    @Test("frames that a gateway must not send end the link")
    func forbidden() {
        for kind in [login, register, finishRegister, ok] + Array(8...255) {
            let end = readyAgent()
            end.feed(frame(kind))
            #expect(end.violations.count == 1, "kind \(kind)")
            #expect(end.output() == [], "an agent sends no Error")
        }
        for kind in [payload, close] {
            let end = End(.agent)
            end.feed(frame(kind, 1))
            #expect(end.violations.count == 1, "kind \(kind)")
        }
    }

    @Test("bytes that the gateway sent before it received our Close open no new stream")
    func stragglers() throws {
        let end = readyAgent()
        end.feed(frame(payload, 5, [1]))
        let key = try #require(opened(end).first)
        _ = end.finish(key)
        #expect(end.output() == frame(close, 5))
        end.feed(frame(payload, 5, [2]))
        #expect(opened(end).count == 1)
        #expect(end.data[key] == [1])
        // If the gateway means a new visitor, the Close keeps that visitor from waiting.
        #expect(end.output() == frame(close, 5))
        end.link.release(key)
        end.now = 99
        end.feed(frame(payload, 5, [2]))
        #expect(opened(end).count == 1)
        end.now = 198
        end.feed(frame(payload, 5, [2]))
        #expect(opened(end).count == 1, "stragglers that follow each other")
        end.now = 298
        end.feed(frame(payload, 5, [3]))
        #expect(opened(end).count == 2)
    }

    @Test("after the gateway's own Close, the ID belongs to a new visitor at once")
    func reusedID() throws {
        let end = readyAgent()
        end.feed(frame(payload, 5, [1]) + frame(close, 5) + frame(payload, 5, [2]))
        let keys = opened(end)
        try #require(keys.count == 2)
        #expect(end.data[keys[0]] == [1] && end.data[keys[1]] == [2])
        #expect(end.ended == [keys[0]])
        // The old backend's bytes do not reach the new visitor.
        end.send(keys[0], [9])
        end.send(keys[1], [8])
        #expect(end.output() == frame(payload, 5, [8]))
        // Both sides closed at the same time, so no more bytes of the old stream can arrive.
        _ = end.finish(keys[1])
        end.feed(frame(close, 5) + frame(payload, 5, [3]))
        #expect(opened(end).count == 3)
    }

    @Test("answers that the gateway does not read are dropped")
    func owed() throws {
        let end = readyAgent()
        end.feed(frame(payload, 5, [1]))
        _ = end.finish(try #require(opened(end).first))
        for _ in 0..<100_000 { end.feed(frame(payload, 5, [2])) }
        #expect(end.outboxCount <= 64 * 1_024 + 7)
    }

    @Test("streams beyond the limit are closed")
    func full() {
        var limits = Version1Limits()
        limits.maximumStreams = 2
        let end = readyAgent(limits: limits)
        end.feed(frame(payload, 1, [1]) + frame(payload, 2, [1]) + frame(payload, 3, [1]))
        #expect(opened(end).count == 2)
        #expect(end.output() == frame(close, 3))
    }

    @Test("random bytes neither trap nor open streams without limit")
    func garbage() {
        var state: UInt64 = 1
        func random() -> UInt8 {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return UInt8(truncatingIfNeeded: state >> 40)
        }
        for round in 0..<400 {
            let end = round % 2 == 0 ? readyAgent() : readyGateway()
            // Mostly valid kinds, so that the link survives for a while.
            for _ in 0..<60 {
                let kind = random() < 250 ? [payload, close][Int(random() % 2)] : random()
                end.feed(
                    frame(kind, UInt32(random() % 8), [UInt8](repeating: 1, count: Int(random())))
                        + (random() == 0 ? [random(), random()] : []))
                end.now += UInt64(random())
                _ = end.tick()
            }
            #expect(end.streamCount <= 1_024)
        }
    }
}
