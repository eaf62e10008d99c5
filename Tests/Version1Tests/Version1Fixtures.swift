import Bytes
import Tunnel
import Version1
import Wire

/// Encodes a frame of version 1 by hand.
func frame(_ kind: UInt8, _ id: UInt32 = 0, _ payload: [UInt8] = []) -> [UInt8] {
    precondition(payload.count <= 65_535)
    return [kind] + [24, 16, 8, 0].map { UInt8(truncatingIfNeeded: id >> $0) }
        + [UInt8(payload.count >> 8), UInt8(payload.count & 0xFF)] + payload
}

func frame(_ kind: UInt8, _ text: String) -> [UInt8] { frame(kind, 0, Array(text.utf8)) }

let ok: UInt8 = 0
let error: UInt8 = 1
let register: UInt8 = 2
let finishRegister: UInt8 = 3
let payload: UInt8 = 4
let close: UInt8 = 5
let terminate: UInt8 = 6
let login: UInt8 = 7

/// One end of a link without sockets. It takes bytes and records what a driver would have done.
final class End {
    var link: Version1Link
    var now: UInt64 = 0
    private var partial: [UInt8] = []
    /// All events except data.
    var events: [LinkEvent] = []
    /// The bytes received for each edge.
    var data: [StreamKey: [UInt8]] = [:]
    var ended: [StreamKey] = []
    /// Whether bytes for the edges are consumed at once.
    var consumes = true

    init(_ role: Role, limits: Version1Limits = Version1Limits(), budget: ByteBudget? = nil) {
        self.link = Version1Link(role: role, limits: limits, budget: budget, now: 0)
    }

    /// Everything in the machine's outbox.
    func output() -> [UInt8] {
        var bytes: [UInt8] = []
        self.link.drainOutbox(atMost: .max) { bytes += $0 }
        return bytes
    }

    func feed(_ bytes: [UInt8]) {
        let batch = self.partial + bytes
        var offset = 0
        loop: while true {
            let event = self.link.nextEvent(batch.span.bytes, at: &offset, now: self.now)
            switch event {
            case .needMore: break loop
            case .data(let key, let range, let fin):
                self.data[key, default: []] += batch[range]
                if self.consumes { self.link.consumed(key, range.count, now: self.now) }
                if fin { self.ended.append(key) }
            default: self.events.append(event)
            }
        }
        self.partial = Array(batch[offset...])
    }

    /// Feeds one byte at a time.
    func feedSlowly(_ bytes: [UInt8]) {
        for byte in bytes { self.feed([byte]) }
    }

    func send(_ key: StreamKey, _ bytes: [UInt8]) { self.link.send(key, bytes.span.bytes, now: self.now) }

    func tick() -> (verdict: LinkTick, expired: [(key: StreamKey, expiry: StreamExpiry)]) {
        var expired: [(StreamKey, StreamExpiry)] = []
        let verdict = self.link.tick(now: self.now, expired: &expired)
        return (verdict, expired.map { ($0.0, $0.1) })
    }

    /// The bytes that the kernel holds for the peer of a stream.
    var unacknowledged: [StreamKey: Int] = [:]

    func slowStreams() -> [StreamKey] {
        var expired: [(StreamKey, StreamExpiry)] = []
        let unacknowledged = self.unacknowledged
        self.link.judgeSlowStreams(now: self.now, unacknowledged: { unacknowledged[$0] ?? 0 }, expired: &expired)
        return expired.map { $0.0 }
    }

    func open() -> StreamKey? {
        self.link.open(exposure: 0, visitor: .none, local: .none, now: self.now)
    }

    // `#expect` cannot capture a noncopyable machine.
    var phase: LinkPhase { self.link.phase }
    var canOpen: Bool { self.link.obstacle(toOpening: 0) == nil }
    var isFull: Bool { self.link.isFull }
    var takesInput: Bool { self.link.takesInput }
    var waitingBytes: Int { self.link.waitingBytes }
    var streamCount: Int { self.link.streamCount }
    var outboxCount: Int { self.link.outboxCount }
    func finish(_ key: StreamKey) -> Bool { self.link.finish(key, now: self.now) }
    func makeRoom() -> StreamKey? { self.link.makeRoom() }
    func nextResumable() -> StreamKey? { self.link.nextResumable() }
    func allowance(_ key: StreamKey) -> Int { self.link.sendAllowance(key) }

    var violations: [PeerViolation] {
        self.events.compactMap { if case .violation(let violation) = $0 { violation } else { nil } }
    }
}

/// A gateway's end with an agent that has registered.
func readyGateway(limits: Version1Limits = Version1Limits(), budget: ByteBudget? = nil, registration: UInt32 = 0) -> End
{
    let end = End(.gateway, limits: limits, budget: budget)
    end.feed(frame(login, "token"))
    end.link.acceptLogin(Welcome(linkID: 1, maximumNames: 16), now: 0)
    end.feed(frame(register, registration, Array("example".utf8)))
    end.link.answerRegister(Registered(exposure: UInt16(registration), code: .none, port: 1, text: ""))
    end.feed(frame(finishRegister))
    _ = end.output()
    end.events = []
    return end
}

/// An agent's end that has registered.
func readyAgent(limits: Version1Limits = Version1Limits()) -> End {
    let end = End(.agent, limits: limits)
    end.link.login(
        Login(method: .token, instanceKey: [UInt8](repeating: 0, count: 32), run: 0, token: "token"))
    end.feed(frame(ok))
    end.link.register(Register(exposure: 0, port: 0, name: "example"))
    end.feed(frame(ok))
    _ = end.output()
    end.events = []
    return end
}
