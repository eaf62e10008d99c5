import Bytes
import TestSupport
import Tunnel
import Wire

/// A session between a gateway's end and an agent's end, over one simulated carrier after another. It replaces the
/// drivers: it dials, freezes, checks proofs and hands connections over as they do.
final class SessionPair {
    /// One end of a carrier.
    enum Stage {
        /// The connection has its own link until RESUME is answered.
        case greeting(Greeter)
        /// The session sends and receives here.
        case session
        /// Closed, or frozen because a newer carrier took over.
        case gone
    }

    /// The link of a new connection.
    final class Greeter {
        var link: Link
        var partial: [UInt8] = []

        init(_ role: Role, limits: LinkLimits, now: UInt64) {
            self.link = Link(role: role, limits: limits, budget: nil, now: now)
            self.link.start(software: "test")
        }
    }

    final class Carrier {
        let number: Int
        var agent: Stage
        var gateway: Stage
        /// Bytes on their way.
        var toAgent: [UInt8] = []
        var toGateway: [UInt8] = []
        /// Bytes delivered so far.
        var delivered = (toAgent: 0, toGateway: 0)
        /// Silently loses what is sent from now on.
        var losesToAgent = false
        var losesToGateway = false

        init(number: Int, agent: Stage, gateway: Stage) {
            self.number = number
            self.agent = agent
            self.gateway = gateway
        }

        var isOver: Bool {
            if case .gone = self.agent, case .gone = self.gateway { true } else { false }
        }

        /// Replaces the TLS exporter.
        var exporter: [UInt8] { [UInt8](repeating: UInt8(truncatingIfNeeded: self.number), count: 32) }
    }

    static let key = SessionKey(id: [UInt8](repeating: 5, count: 16), secret: [UInt8](repeating: 9, count: 32))

    let gateway: SimulatedEnd
    let agent: SimulatedEnd
    private let limits: LinkLimits
    private(set) var carriers: [Carrier] = []
    private var dialled = 0
    private(set) var resumedCount = 0
    var failures: [String] = []
    var now: UInt64 = 0

    init(limits: LinkLimits, bytesToSend: @escaping (UInt32, Role) -> Int) {
        self.limits = limits
        self.gateway = SimulatedEnd(.gateway, limits: limits, bytesToSend: bytesToSend)
        self.agent = SimulatedEnd(.agent, limits: limits, bytesToSend: bytesToSend)
        self.gateway.sessionKey = Self.key
        self.gateway.link.start(software: "gateway")
        self.agent.link.start(software: "agent")
        self.agent.link.login(Login(method: .instance, instanceKey: Array(repeating: 1, count: 32), run: 1, token: ""))
        self.carriers = [Carrier(number: 0, agent: .session, gateway: .session)]
        self.dialled = 1
    }

    /// The carrier on which an end of the session sends and receives; nil if it is detached.
    func current(_ role: Role) -> Carrier? {
        self.carriers.first {
            if case .session = role == .agent ? $0.agent : $0.gateway { true } else { false }
        }
    }

    var isConnected: Bool { self.current(.agent).map { $0 === self.current(.gateway) } ?? false }

    /// A connection of the agent that is not the session's carrier yet.
    var candidate: Carrier? {
        self.carriers.first { if case .greeting = $0.agent { true } else { false } }
    }

    // MARK: - Carriers

    func dial() {
        let carrier = Carrier(
            number: self.dialled, agent: .greeting(Greeter(.agent, limits: self.limits, now: self.now)),
            gateway: .greeting(Greeter(.gateway, limits: self.limits, now: self.now)))
        self.dialled += 1
        self.carriers.append(carrier)
    }

    /// An end learns that the carrier is broken. What is on its way to it is lost.
    func breaks(_ carrier: Carrier, at role: Role) {
        let stage = role == .agent ? carrier.agent : carrier.gateway
        if case .session = stage {
            let end = role == .agent ? self.agent : self.gateway
            if end.link.canResume { end.link.detach(now: self.now) } else { self.failures.append("lost before login") }
        }
        if role == .agent {
            carrier.agent = .gone
            carrier.toAgent = []
        } else {
            carrier.gateway = .gone
            carrier.toGateway = []
        }
        self.carriers.removeAll(where: \.isOver)
    }

    // MARK: - Bytes

    /// Lets the ends put bytes on the wires.
    func send(_ carrier: Carrier, from role: Role, atMost: Int) {
        let bytes: [UInt8]
        switch role == .agent ? carrier.agent : carrier.gateway {
        case .gone: return
        case .session: bytes = (role == .agent ? self.agent : self.gateway).output(atMost: atMost, now: self.now)
        case .greeting(let greeter):
            var result: [UInt8] = []
            greeter.link.fill(atMost, now: self.now)
            greeter.link.drainOutbox(atMost: atMost) { result += $0 }
            bytes = result
        }
        if role == .agent {
            if !carrier.losesToGateway { carrier.toGateway += bytes }
        } else if !carrier.losesToAgent {
            carrier.toAgent += bytes
        }
    }

    /// Delivers up to `count` bytes to an end.
    func deliver(_ carrier: Carrier, to role: Role, _ count: Int) {
        let bytes: [UInt8]
        if role == .agent {
            bytes = Array(carrier.toAgent.prefix(count))
            carrier.toAgent.removeFirst(bytes.count)
            carrier.delivered.toAgent += bytes.count
        } else {
            bytes = Array(carrier.toGateway.prefix(count))
            carrier.toGateway.removeFirst(bytes.count)
            carrier.delivered.toGateway += bytes.count
        }
        guard !bytes.isEmpty else { return }
        self.take(carrier, at: role, bytes)
    }

    private func take(_ carrier: Carrier, at role: Role, _ bytes: [UInt8]) {
        let end = role == .agent ? self.agent : self.gateway
        switch role == .agent ? carrier.agent : carrier.gateway {
        case .gone: return
        case .session: end.feed(bytes, now: self.now)
        case .greeting(let greeter):
            let batch = greeter.partial + bytes
            var offset = 0
            loop: while true {
                switch greeter.link.nextEvent(batch.span.bytes, at: &offset, now: self.now) {
                case .needMore: break loop
                case .greeted: self.request(greeter, carrier)
                case .resume(let resume):
                    guard self.judge(resume, greeter, carrier) else { return }
                    return end.feed(Array(batch[offset...]), now: self.now)
                case .resumed(let resumed):
                    guard self.resume(resumed, carrier) else { return }
                    return end.feed(Array(batch[offset...]), now: self.now)
                case .goAway: return self.breaks(carrier, at: role)
                case let event:
                    self.failures.append("\(role), carrier \(carrier.number): \(event)")
                    return self.breaks(carrier, at: role)
                }
            }
            greeter.partial = Array(batch[offset...])
        }
    }

    /// The agent freezes the older carrier, then sends RESUME.
    private func request(_ greeter: Greeter, _ carrier: Carrier) {
        if let old = self.current(.agent) { self.breaks(old, at: .agent) }
        var resume = self.agent.link.nextResume()
        resume.proof = self.proof(resume, carrier)
        greeter.link.request(resume)
    }

    private func proof(_ resume: Resume, _ carrier: Carrier) -> [UInt8] {
        let bytes = resume.proven(exporter: carrier.exporter) + Self.key.secret
        let sum = bytes.reduce(UInt64(7)) { $0 &* 31 &+ UInt64($1) }
        return [UInt8](repeating: 0, count: 24) + number(sum)
    }

    /// - Returns: whether the carrier is the session's from now on.
    private func judge(_ resume: Resume, _ greeter: Greeter, _ carrier: Carrier) -> Bool {
        guard resume.sessionID == Self.key.id, resume.proof == self.proof(resume, carrier) else {
            self.failures.append("a wrong proof")
            return false
        }
        let old = self.current(.gateway)
        switch self.gateway.link.judge(resume, now: self.now) {
        case .resumed:
            if let old {
                old.gateway = .gone
                old.toGateway = []
                self.carriers.removeAll(where: \.isOver)
            }
            carrier.gateway = .session
            self.gateway.newCarrier()
            return true
        case .replaced:
            greeter.link.goAway(.replaced, retryAfterSeconds: 0, text: "")
            self.send(carrier, from: .gateway, atMost: .max)
            self.breaks(carrier, at: .gateway)
            return false
        case .violation(let violation):
            self.failures.append("RESUME: \(violation)")
            return false
        }
    }

    private func resume(_ resumed: Resumed, _ carrier: Carrier) -> Bool {
        do throws(PeerViolation) { try self.agent.link.resume(resumed, now: self.now) } catch {
            self.failures.append("RESUMED: \(error)")
            return false
        }
        carrier.agent = .session
        self.agent.newCarrier()
        self.resumedCount += 1
        return true
    }

    /// Delivers everything until neither end has anything to send.
    func settle() {
        for _ in 0..<2_000 {
            var isQuiet = true
            if self.current(.agent) == nil, self.candidate == nil { self.dial() }
            for end in [self.gateway, self.agent] where end.link.owesAcknowledgement { end.link.acknowledge() }
            for carrier in self.carriers {
                for role in [Role.agent, .gateway] { self.send(carrier, from: role, atMost: 1 << 16) }
                if !carrier.toAgent.isEmpty || !carrier.toGateway.isEmpty { isQuiet = false }
                self.deliver(carrier, to: .gateway, .max)
                self.deliver(carrier, to: .agent, .max)
            }
            self.now += 1
            if isQuiet { return }
        }
        self.failures.append("the ends never fall silent")
    }
}
