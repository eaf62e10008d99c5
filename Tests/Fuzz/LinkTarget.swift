import Bytes
import Tunnel
import Wire

/// Small limits, so that a short input reaches each of them.
private func smallLimits() -> LinkLimits {
    var limits = LinkLimits()
    limits.startWindow = 4_096
    limits.maxWindow = 16_384
    limits.nearWindow = 8_192
    limits.pressureWindow = 2_048
    limits.floorWindow = 1_024
    limits.helloWindow = 2_048
    limits.maximumStreams = 6
    limits.pendingOpens = 3
    limits.streamQueue = 4_096
    limits.linkBudget = 16_384
    limits.owedControl = 512
    limits.glitchBurst = 20
    limits.firstKept = 65_536
    limits.maxKept = 65_536
    return limits
}

/// The most that our end may grant: the budget, and for each stream a window that was parked and has come back, and a
/// send queue, whose memory is at most twice its bytes. In a session also what is kept, in blocks of 64 KiB.
private func maxGranted(_ limits: LinkLimits) -> Int {
    limits.linkBudget + limits.maximumStreams * (limits.maxWindow + 2 * limits.streamQueue)
        + limits.maxKept + limits.keptForControl + 2 * 65_536
}

/// Watches both directions of a link: the limits that the peer grants, and the bytes that our end sends.
private struct Watch {
    /// By stream: the limit that the peer has granted, and the number of bytes sent.
    private var limits: [UInt32: UInt64] = [:]
    private var sent: [UInt32: UInt64] = [:]
    private var ended: Set<UInt32> = []
    private var startLimit: UInt64 = 0
    private var partial: [UInt8] = []

    /// Records frames of the peer that our end has processed.
    mutating func taken(_ bytes: ArraySlice<UInt8>) {
        Self.frames(Array(bytes)) { header, payload in
            guard let type = FrameType(rawValue: header.typeByte), type != .data,
                let frame = try? ControlFrame(type, payload: payload.span.bytes)
            else { return }
            switch frame {
            case .hello(let hello): self.startLimit = UInt64(hello.streamWindow)
            // A second OPEN for the same stream is a violation, and changes nothing.
            case .open(let open): self.limits[header.id] = self.limits[header.id] ?? open.limit
            case .accept(let limit), .window(let limit):
                self.limits[header.id] = max(self.limits[header.id] ?? self.startLimit, limit)
            default: break
            }
        }
    }

    /// Checks bytes of our end's outbox. They may be split anywhere.
    mutating func wrote(_ bytes: [UInt8]) {
        let rest = Self.frames(self.partial + bytes) { header, payload in
            guard let type = FrameType(rawValue: header.typeByte) else {
                fatalError("sent the type \(header.typeByte)")
            }
            guard type == .data else {
                check((try? ControlFrame(type, payload: payload.span.bytes)) != nil, "sent a bad \(type)")
                if type == .reset { self.ended.insert(header.id) }
                return
            }
            check(!self.ended.contains(header.id), "sent on stream \(header.id) after its end")
            self.sent[header.id, default: 0] += UInt64(payload.count)
            let limit = self.limits[header.id] ?? self.startLimit
            check(self.sent[header.id, default: 0] <= limit, "sent more on stream \(header.id) than \(limit)")
            if header.flags & FrameFlag.fin != 0 { self.ended.insert(header.id) }
        }
        self.partial = rest
    }

    /// Calls `body` with each whole frame. Returns the rest.
    @discardableResult
    private static func frames(_ bytes: [UInt8], _ body: (FrameHeader, [UInt8]) -> Void) -> [UInt8] {
        var offset = 0
        while let header = FrameHeader(bytes.span.bytes, at: offset) {
            let end = offset + WireConstant.headerSize + header.length
            guard end <= bytes.count else { break }
            body(header, Array(bytes[(offset + WireConstant.headerSize)..<end]))
            offset = end
        }
        return Array(bytes[offset...])
    }
}

/// A well-formed frame of the peer, so that a run gets past the first header.
private func peerFrame(_ choices: inout Choices, _ role: Role) -> [UInt8] {
    let id = UInt32(choices.byte() & 15)
    /// A limit near a bound, or any value.
    func limit(_ choices: inout Choices) -> UInt64 {
        let kind = choices.number(below: 4)
        return kind == 0 ? choices.word64() : UInt64(choices.word16()) << UInt64(4 * (kind - 1))
    }
    var out = ByteQueue()
    switch choices.number(below: 16) {
    case 0:
        Hello(
            streamWindow: UInt32(truncatingIfNeeded: limit(&choices)), maximumStreams: UInt32(choices.byte()),
            software: "x"
        ).encode(into: &out)
    case 1:
        Login(method: .token, instanceKey: Array(repeating: 1, count: 32), run: 1, token: "t").encode(into: &out)
    case 2: Welcome(linkID: 1, maximumNames: choices.word16()).encode(into: &out)
    case 3: Register(exposure: choices.word16() & 3, port: choices.word16(), name: "name").encode(into: &out)
    case 4:
        Registered(exposure: choices.word16() & 3, code: ErrorCode(rawValue: choices.word16()), port: 1, text: "t")
            .encode(into: &out)
    case 5: NumberFrame.encode(.unregister, choices.word16() & 3, into: &out)
    case 6:
        Open(exposure: choices.word16() & 3, limit: limit(&choices), visitor: .none, local: .none).encode(
            id: id, into: &out)
    case 7: NumberFrame.encode(.accept, id: id, limit(&choices), into: &out)
    case 8:
        let count = Int(choices.byte()) * 8
        let fin = choices.byte() & 3 == 0 ? FrameFlag.fin : 0
        out.append(FrameHeader(id: id, type: .data, flags: fin, length: count).word)
        out.append([UInt8](repeating: 7, count: count))
    case 9: NumberFrame.encode(.window, id: id, limit(&choices), into: &out)
    case 10: NumberFrame.encode(.reset, id: id, choices.word16(), into: &out)
    case 11: NumberFrame.encode(.ping, choices.word64(), into: &out)
    case 12: NumberFrame.encode(.pong, UInt64(choices.byte()), into: &out)
    case 13: NumberFrame.encode(.ack, limit(&choices), into: &out)
    case 14:
        Resume(
            sessionID: [UInt8](repeating: 1, count: 16), epoch: UInt32(choices.byte()), handled: limit(&choices),
            proof: [UInt8](repeating: 0, count: 32)
        ).encode(into: &out)
    default:
        GoAway(code: ErrorCode(rawValue: UInt16(choices.byte())), text: "bye").encode(into: &out)
    }
    return out.withReadable { Array($0) }
}

/// One end against a peer that sends anything. The first byte selects the role and whether the login is done.
@Sendable func fuzzLink(_ bytes: [UInt8]) -> Int {
    var choices = Choices(bytes)
    let first = choices.byte()
    let role: Role = first & 1 == 0 ? .gateway : .agent
    let isSession = first & 4 != 0
    let limits = smallLimits()
    let parent = ByteBudget(limit: 64 * 1_024)
    let model = LinkModel(role, Link(role: role, limits: limits, budget: parent, now: 0))
    var watch = Watch()
    model.onTaken = { watch.taken($0) }
    var now: UInt64 = 0
    model.machine.start(software: "fuzz")
    if role == .agent {
        model.machine.login(Login(method: .token, instanceKey: Array(repeating: 1, count: 32), run: 1, token: "t"))
    }
    if first & 2 != 0 {
        var out = ByteQueue()
        Hello(streamWindow: 2_048, maximumStreams: 8, software: "x", keeps: isSession ? 65_536 : nil).encode(into: &out)
        if role == .gateway {
            Login(method: .token, instanceKey: Array(repeating: 1, count: 32), run: 1, token: "").encode(into: &out)
        } else {
            Welcome(linkID: 1, maximumNames: 4, session: isSession ? LinkModel<Link>.key : nil).encode(into: &out)
        }
        model.feed(out.withReadable { Array($0) }, now: now)
        if role == .gateway {
            model.machine.acceptLogin(Welcome(linkID: 1, maximumNames: 4, session: LinkModel<Link>.key), now: now)
        }
    }
    while !choices.isEmpty {
        let choice = choices.number(below: driverChoices + 6)
        switch choice {
        case driverChoices: model.feed(choices.bytes(atMost: 64), now: now)
        case driverChoices + 1, driverChoices + 2: model.feed(peerFrame(&choices, role), now: now)
        case driverChoices + 3, driverChoices + 4:
            let atMost = Int(choices.byte()) * 64
            let output = model.output(atMost: atMost, now: now)
            // What is sent again would count twice.
            if !isSession { watch.wrote(output) }
        case driverChoices + 5:
            if choices.byte() & 1 == 0 { model.machine.acknowledge() } else { model.resume(&choices, now: now) }
        default: drive(model, choice, &choices, now: &now)
        }
        check(
            model.machine.grantedBytes <= maxGranted(limits), "\(model.machine.grantedBytes) bytes are granted")
    }
    let output = model.output(atMost: 1 << 20, now: now)
    if !isSession { watch.wrote(output) }
    model.end()
    check(model.machine.grantedBytes == 0, "\(model.machine.grantedBytes) bytes are still granted")
    check(parent.used == 0, "\(parent.used) bytes are still granted in the process")
    return Int(model.machine.statistics.framesReceived)
}

/// Two honest ends. Neither may see a violation, whatever the order of events.
@Sendable func fuzzLinkPair(_ bytes: [UInt8]) -> Int {
    var choices = Choices(bytes)
    let limits = smallLimits()
    let gateway = LinkModel(.gateway, Link(role: .gateway, limits: limits, budget: nil, now: 0))
    let agent = LinkModel(.agent, Link(role: .agent, limits: limits, budget: nil, now: 0))
    var now: UInt64 = 0
    gateway.machine.start(software: "gateway")
    agent.machine.start(software: "agent")
    agent.machine.login(Login(method: .token, instanceKey: Array(repeating: 1, count: 32), run: 1, token: ""))
    var watches = (gateway: Watch(), agent: Watch())
    gateway.onTaken = { watches.gateway.taken($0) }
    agent.onTaken = { watches.agent.taken($0) }
    /// Moves up to `atMost` bytes in each direction.
    func carry(_ atMost: Int) {
        let right = agent.output(atMost: atMost, now: now)
        watches.agent.wrote(right)
        gateway.feed(right, now: now)
        let left = gateway.output(atMost: atMost, now: now)
        watches.gateway.wrote(left)
        agent.feed(left, now: now)
    }
    carry(1 << 16)
    gateway.machine.acceptLogin(Welcome(linkID: 1, maximumNames: 16, session: LinkModel<Link>.key), now: now)
    carry(1 << 16)
    while !choices.isEmpty {
        let choice = choices.byte()
        let step = Int(choice >> 1) % (driverChoices + 2)
        if step >= driverChoices {
            carry(Int(choices.byte()) * 64)
        } else if step == 14 {
            // Only agents register.
            drive(agent, step, &choices, now: &now)
        } else {
            // The clock advances in steps too small for either end to consider the other dead.
            if step == 0 {
                now += UInt64(choices.byte())
                gateway.tick(now: now)
                agent.tick(now: now)
            } else {
                drive(choice & 1 == 0 ? gateway : agent, step, &choices, now: &now)
            }
        }
        for violation in [gateway.violation, agent.violation] {
            // Both are rate limits, which this driver does not respect.
            guard let violation, violation.code != .glitches, violation.code != .owed else { continue }
            fatalError("two honest ends, and \(violation)")
        }
    }
    carry(1 << 20)
    gateway.end()
    agent.end()
    check(gateway.machine.grantedBytes == 0, "\(gateway.machine.grantedBytes) bytes at the gateway")
    check(agent.machine.grantedBytes == 0, "\(agent.machine.grantedBytes) bytes at the agent")
    return Int(gateway.machine.statistics.bytesReceived &+ agent.machine.statistics.bytesReceived)
}
