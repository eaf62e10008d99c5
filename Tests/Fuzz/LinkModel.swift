import Bytes
import Tunnel
import Wire

/// One end of a link, driven by the choices of a fuzzer. It replaces ``LinkSession`` and its edges, without sockets.
///
/// It keeps the driver's side of the contract of ``LinkMachine``: it never sends more than allowed, never consumes
/// more than has arrived, and never uses a slot after its release.
final class LinkModel<Machine: LinkMachine & ~Copyable> {
    final class Edge {
        let key: StreamKey
        /// Bytes that have arrived and are not yet consumed.
        var pending = 0
        /// At the agent: false until the backend is connected.
        var isConnected: Bool
        var hasFinished = false
        var wasCut = false

        init(_ key: StreamKey, isConnected: Bool) {
            self.key = key
            self.isConnected = isConnected
        }
    }

    let role: Role
    var machine: Machine
    private(set) var edges: [Edge] = []
    private(set) var violation: PeerViolation?
    /// Registrations requested by the peer.
    private(set) var registers: [Register] = []
    private(set) var wantsLogin = false
    private var partial: [UInt8] = []
    /// Called with the bytes of each step of the machine; empty if it took none.
    var onTaken: (ArraySlice<UInt8>) -> Void = { _ in }

    init(_ role: Role, _ machine: consuming Machine) {
        self.role = role
        self.machine = machine
    }

    func edge(_ choices: inout Choices) -> Edge? {
        self.edges.isEmpty ? nil : self.edges[choices.number(below: self.edges.count)]
    }

    // MARK: - From the wire

    func feed(_ bytes: [UInt8], now: UInt64) {
        guard self.machine.phase != .closed else { return }
        let batch = self.partial + bytes
        var offset = 0
        if !bytes.isEmpty { self.machine.heard(now: now) }
        loop: while true {
            let start = offset
            let event = self.machine.nextEvent(batch.span.bytes, at: &offset, now: now)
            check(offset >= start && offset <= batch.count, "the offset went from \(start) to \(offset)")
            self.onTaken(batch[start..<offset])
            switch event {
            case .needMore: break loop
            case .login: self.wantsLogin = true
            case .register(let register): self.registers.append(register)
            case .opened(let key, _): self.add(key)
            case .data(let key, let range, let fin): self.took(key, range.count, fin)
            case .reset(let key, _): self.cut(key)
            case .goAway:
                if self.machine.phase == .closed { break loop }
            case .violation(let violation):
                check(self.machine.phase == .closed, "a violation, and the link goes on")
                self.violation = violation
                break loop
            case .greeted, .resume, .resumed, .welcomed, .registered, .unregister, .ready, .accepted: break
            }
        }
        self.partial = Array(batch[offset...])
    }

    private func took(_ key: StreamKey, _ count: Int, _ fin: Bool) {
        guard let edge = self.edges.first(where: { $0.key == key }) else { fatalError("data for no edge, \(key)") }
        check(!edge.wasCut, "data for \(key) after its reset")
        edge.pending += count
    }

    private func cut(_ key: StreamKey) { self.edges.first { $0.key == key }?.wasCut = true }

    func add(_ key: StreamKey) {
        check(!self.edges.contains { $0.key.slot == key.slot }, "the slot \(key.slot) was given away twice")
        self.edges.append(Edge(key, isConnected: self.role == .gateway))
    }

    // MARK: - From the edges

    func send(_ edge: Edge, atMost: Int, now: UInt64) {
        // The driver lets no edge send on a closed link.
        guard self.machine.phase != .closed, edge.isConnected, !edge.hasFinished, !edge.wasCut else { return }
        let allowance = self.machine.sendAllowance(edge.key)
        check(allowance >= 0, "an allowance of \(allowance)")
        let count = min(allowance, atMost)
        guard count > 0 else { return }
        let bytes = [UInt8](repeating: UInt8(truncatingIfNeeded: edge.key.id), count: count)
        self.machine.send(edge.key, bytes.span.bytes, now: now)
    }

    func finish(_ edge: Edge, now: UInt64) {
        guard edge.isConnected, !edge.hasFinished, !edge.wasCut else { return }
        edge.hasFinished = true
        _ = self.machine.finish(edge.key, now: now)
    }

    func consume(_ edge: Edge, atMost: Int, now: UInt64) {
        let count = min(edge.pending, atMost)
        guard edge.isConnected, count > 0 else { return }
        edge.pending -= count
        self.machine.consumed(edge.key, count, now: now)
    }

    func accept(_ edge: Edge, now: UInt64) {
        guard self.role == .agent, !edge.isConnected, !edge.wasCut else { return }
        edge.isConnected = true
        self.machine.accept(edge.key, now: now)
    }

    /// Makes the edge fail after the bytes that it has sent, or cuts it at once.
    func reset(_ edge: Edge, _ code: ErrorCode, atOnce: Bool) {
        if atOnce { self.machine.cut(edge.key, code) } else { self.machine.reset(edge.key, code) }
        edge.wasCut = true
    }

    func release(_ edge: Edge) {
        self.machine.release(edge.key)
        self.edges.removeAll { $0 === edge }
    }

    // MARK: - To the wire, and the clock

    func output(atMost: Int, now: UInt64) -> [UInt8] {
        self.machine.fill(atMost, now: now)
        var result: [UInt8] = []
        self.machine.drainOutbox(atMost: atMost) { result += $0 }
        while self.machine.nextResumable() != nil {}
        return result
    }

    func tick(now: UInt64) {
        var expired: [(StreamKey, StreamExpiry)] = []
        self.machine.judgeSlowStreams(now: now, unacknowledged: { _ in 0 }, expired: &expired)
        _ = self.machine.tick(now: now, expired: &expired)
        for (key, expiry) in expired {
            guard case .reset = expiry else { continue }
            self.cut(key)
        }
    }

    /// The connection breaks, and the session continues on another one. The peer states any position.
    func resume(_ choices: inout Choices, now: UInt64) {
        guard self.machine.canResume else { return }
        self.partial = []
        let handled = choices.byte() < 200 ? UInt64(choices.word16()) : choices.word64()
        if self.role == .gateway {
            let resume = Resume(sessionID: Self.key.id, epoch: UInt32(choices.byte()), handled: handled)
            if case .violation = self.machine.judge(resume, now: now) { self.machine.shut() }
        } else {
            self.machine.detach(now: now)
            let resume = self.machine.nextResume()
            do throws(PeerViolation) {
                try self.machine.resume(Resumed(code: .none, epoch: resume.epoch, handled: handled), now: now)
            } catch { self.machine.shut() }
        }
    }

    static var key: SessionKey {
        SessionKey(id: [UInt8](repeating: 1, count: 16), secret: [UInt8](repeating: 2, count: 32))
    }

    func login(_ choices: inout Choices, now: UInt64) {
        guard self.wantsLogin else { return }
        self.wantsLogin = false
        if choices.byte() < 224 {
            self.machine.acceptLogin(Welcome(linkID: 1, maximumNames: 16), now: now)
        } else {
            self.machine.goAway(.loginRefused, retryAfterSeconds: 0, text: "the login was refused")
        }
    }

    func answer(_ code: ErrorCode, now: UInt64) {
        guard let register = self.registers.popLast() else { return }
        self.machine.answerRegister(Registered(exposure: register.exposure, code: code, port: 30_000, text: "text"))
    }

    /// Ends the link as its driver does, by closing every edge. Nothing may be left.
    func end() {
        self.machine.shut()
        for edge in self.edges { self.machine.release(edge.key) }
        self.edges = []
        check(self.machine.streamCount == 0, "\(self.machine.streamCount) streams are left")
    }
}

/// Performs one step of the driver, the same for every machine.
///
/// - Parameter choice: less than ``driverChoices``.
func drive<Machine: LinkMachine & ~Copyable>(
    _ model: LinkModel<Machine>, _ choice: Int, _ choices: inout Choices, now: inout UInt64
) {
    switch choice {
    case 0:
        now += choices.element(of: [1, 100, 1_000, 5_000, 15_000, 45_000, 60_000, 300_000])
        model.tick(now: now)
    case 1:
        guard model.role == .gateway, !model.machine.isFull || model.machine.makeRoom() != nil else { return }
        let key = model.machine.open(exposure: choices.word16() & 3, visitor: .none, local: .none, now: now)
        if let key { model.add(key) }
    case 2:
        let size = Int(choices.byte()) * 64 + 1
        if let edge = model.edge(&choices) { model.send(edge, atMost: size, now: now) }
    case 3: if let edge = model.edge(&choices) { model.finish(edge, now: now) }
    case 4:
        let code = choices.byte()
        if let edge = model.edge(&choices) {
            model.reset(edge, ErrorCode(rawValue: UInt16(code >> 1)), atOnce: code & 1 == 1)
        }
    case 5: if let edge = model.edge(&choices) { model.release(edge) }
    case 6:
        let size = Int(choices.byte()) * 64 + 1
        if let edge = model.edge(&choices) { model.consume(edge, atMost: size, now: now) }
    case 7: if let edge = model.edge(&choices) { model.accept(edge, now: now) }
    case 8: model.machine.congestion(choices.byte() & 1 == 1, now: now)
    case 9: model.machine.outputProgressed(now: now)
    case 10: model.machine.clockJumped(now: now)
    case 11: model.login(&choices, now: now)
    case 12: model.answer(choices.element(of: [.none, .none, .nameTaken, .drain]), now: now)
    case 13:
        model.machine.goAway(
            choices.element(of: [.drain, .none, .overloaded]), retryAfterSeconds: 1, text: "the gateway is stopping")
    case 14:
        guard model.role == .agent else { return }
        model.machine.register(Register(exposure: choices.word16() & 3, port: 0, name: "name"))
    case 15: if let edge = model.edge(&choices) { model.machine.progressed(edge.key, now: now) }
    default: break
    }
}

let driverChoices = 16
