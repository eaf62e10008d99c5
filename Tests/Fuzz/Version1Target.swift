import Tunnel
import Version1
import Wire

/// Small limits, so that a short input reaches each of them.
private func smallLimits() -> Version1Limits {
    var limits = Version1Limits(readSize: 1_024)
    limits.slowStream = 4_096
    limits.slowStreamUnderPressure = 1_024
    limits.minProgress = 512
    limits.linkBudget = 16_384
    limits.maximumStreams = 6
    limits.owedControl = 512
    limits.rememberedStreams = 4
    return limits
}

/// `kind u8 | id u32 | size u16 | payload`
private func frame(_ kind: UInt8, id: UInt32, _ payload: [UInt8]) -> [UInt8] {
    [
        kind, UInt8(truncatingIfNeeded: id >> 24), UInt8(truncatingIfNeeded: id >> 16),
        UInt8(truncatingIfNeeded: id >> 8), UInt8(truncatingIfNeeded: id),
        UInt8(truncatingIfNeeded: payload.count >> 8),
        UInt8(truncatingIfNeeded: payload.count),
    ] + payload
}

/// One end against a peer that sends anything. The first byte selects the role and whether the link is ready for
/// streams.
@Sendable func fuzzVersion1(_ bytes: [UInt8]) -> Int {
    var choices = Choices(bytes)
    let first = choices.byte()
    let role: Role = first & 1 == 0 ? .gateway : .agent
    let parent = ByteBudget(limit: 64 * 1_024)
    let model = LinkModel(role, Version1Link(role: role, limits: smallLimits(), budget: parent, now: 0))
    var now: UInt64 = 0
    if role == .agent {
        model.machine.login(Login(method: .token, instanceKey: Array(repeating: 1, count: 32), run: 1, token: "t"))
    }
    if first & 2 != 0 { connect(model) }
    var sent = 0
    while !choices.isEmpty {
        let choice = choices.number(below: driverChoices + 5)
        switch choice {
        case driverChoices: model.feed(choices.bytes(atMost: 64), now: now)
        case driverChoices + 1, driverChoices + 2:
            // IDs of the gateway begin at 1. The agent accepts any.
            let id = UInt32(choices.byte() & 7)
            let kind = choices.byte() & 15
            let size = Int(choices.byte()) * (kind == 4 ? 16 : 1)
            model.feed(frame(kind > 7 ? 4 : kind, id: id, [UInt8](repeating: 0x61, count: size)), now: now)
        case driverChoices + 3, driverChoices + 4:
            sent += model.output(atMost: Int(choices.byte()) * 64, now: now).count
        default: drive(model, choice, &choices, now: &now)
        }
        check(model.machine.waitingBytes >= 0, "\(model.machine.waitingBytes) bytes wait")
        let pending = model.edges.reduce(0) { $0 + $1.pending }
        check(model.machine.waitingBytes <= pending, "\(model.machine.waitingBytes) bytes wait, not \(pending)")
    }
    model.end()
    check(model.machine.waitingBytes == 0, "\(model.machine.waitingBytes) bytes still wait")
    check(parent.used == 0, "\(parent.used) bytes still wait in the process")
    return sent
}

/// Takes the link to the state in which streams can run.
private func connect(_ model: LinkModel<Version1Link>) {
    if model.role == .gateway {
        model.feed(frame(7, id: 0, Array("token".utf8)), now: 0)
        model.machine.acceptLogin(Welcome(linkID: 1, maximumNames: 1), now: 0)
        model.feed(frame(2, id: 0, Array("name".utf8)), now: 0)
        model.machine.answerRegister(Registered(exposure: 0, code: .none, port: 1, text: ""))
        model.feed(frame(3, id: 0, []), now: 0)
    } else {
        model.feed(frame(0, id: 0, []), now: 0)
        model.machine.register(Register(exposure: 0, port: 0, name: "name"))
        model.feed(frame(0, id: 0, []), now: 0)
    }
}
