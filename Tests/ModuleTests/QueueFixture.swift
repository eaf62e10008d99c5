import Modules
import Reactor
import Testing
import Timing
import Wire

/// A registrar with scripted answers, which records its calls.
final class FakeRegistrar: Registrar {
    let label = "fake"
    var resetPeriod: UInt64?
    var resetKeepsNames = true
    var maxAtOnce: Int?
    var calls: [String] = []
    /// The actions that fail, in the notation of `calls`.
    var failing: Set<String> = []
    /// Names that a reset finds missing.
    var missing: Set<String> = []
    /// Answers that are held back until `letGo`.
    var waiting: [() -> Void] = []
    var answersLater = false
    private(set) var closes = 0

    private func answer(_ call: String, _ completion: @escaping (Result<Void, RegistrarError>) -> Void) {
        self.calls.append(call)
        let result: Result<Void, RegistrarError> =
            self.failing.contains(call) ? .failure(RegistrarError(reason: "is broken")) : .success(())
        if self.answersLater { self.waiting.append { completion(result) } } else { completion(result) }
    }

    func letGo() {
        let waiting = self.waiting
        self.waiting = []
        for answer in waiting { answer() }
    }

    func count(_ call: String) -> Int { self.calls.count { $0 == call } }

    func reset(
        keeping: [PublicExposure], completion: @escaping (Result<[PublicExposure], RegistrarError>) -> Void
    ) -> (any Cancellable)? {
        let names = keeping.map(\.name.text)
        let missing = keeping.filter { self.missing.contains($0.name.text) }
        self.answer((["reset"] + names).joined(separator: " ")) { completion($0.map { missing }) }
        return nil
    }

    func publish(
        _ exposure: PublicExposure, completion: @escaping (Result<Void, RegistrarError>) -> Void
    ) -> (any Cancellable)? {
        self.answer("publish \(exposure.name)", completion)
        return nil
    }

    func withdraw(
        _ exposure: PublicExposure, completion: @escaping (Result<Void, RegistrarError>) -> Void
    ) -> (any Cancellable)? {
        self.answer("withdraw \(exposure.name)", completion)
        return nil
    }

    func close() { self.closes += 1 }
}

/// A registrar's queue with its own clock.
final class QueueFixture {
    let registrar = FakeRegistrar()
    let queue: RegistrarQueue
    /// The log lines.
    private(set) var lines: [String] = []
    private(set) var abandoned: [Int] = []
    private(set) var now: Milliseconds = 1_000_000
    private var waiting: [UInt64: (String?) -> Void] = [:]
    private var isActing = false

    init(limits: WithdrawalLimits = WithdrawalLimits()) {
        self.queue = RegistrarQueue(RegistrarQueue.Traits(label: self.registrar.label), limits: limits)
    }

    // MARK: - Events

    func start() { self.act { $0.start() } }

    func reconcile() { self.act { $0.reconcile() } }

    func publish(_ exposure: PublicExposure, completion: @escaping (String?) -> Void) {
        self.act { self.waiting[$0.publish(exposure, now: self.now)] = completion }
    }

    func withdraw(_ exposure: PublicExposure) { self.act { $0.withdraw(exposure, now: self.now) } }

    /// Advances the clock. Timers fire when they are due.
    func advance(by span: Milliseconds) {
        let end = self.now + span
        while let deadline = self.queue.nextDeadline, deadline <= end {
            self.now = max(self.now, deadline)
            self.act { $0.timerFired(now: self.now) }
        }
        self.now = end
    }

    /// Advances the clock from timer to timer until `holds` is true. Returns false if that takes more than ten
    /// minutes.
    func run(until holds: () -> Bool) -> Bool {
        let end = self.now + 600_000
        while !holds() {
            guard let deadline = self.queue.nextDeadline, deadline <= end else { return false }
            self.advance(by: deadline - min(self.now, deadline))
        }
        return true
    }

    /// Closes the queue, and advances the clock by the five seconds that it may take.
    func close() {
        self.act { $0.close(now: self.now) }
        self.advance(by: 5_000)
    }

    // MARK: - What follows

    private func act(_ event: (RegistrarQueue) -> Void) {
        self.queue.traits.resetPeriod = self.registrar.resetPeriod
        self.queue.traits.resetKeepsNames = self.registrar.resetKeepsNames
        self.queue.traits.maxAtOnce = self.registrar.maxAtOnce
        event(self.queue)
        guard !self.isActing else { return }
        self.isActing = true
        while let action = self.queue.popAction() { self.perform(action) }
        self.isActing = false
    }

    private func perform(_ action: RegistrarQueue.Action) {
        switch action {
        case .begin(.publish(let exposure), let id):
            _ = self.registrar.publish(exposure) { [weak self] result in self?.ended(id, result) }
        case .begin(.withdraw(let exposure), let id):
            _ = self.registrar.withdraw(exposure) { [weak self] result in self?.ended(id, result) }
        case .begin(.reset(let keeping), let id):
            _ = self.registrar.reset(keeping: keeping) { [weak self] result in
                guard let self else { return }
                self.act { $0.resetEnded(id, result, now: self.now) }
            }
        case .cancel: break
        case .answer(_, let ticket, let failure): self.waiting.removeValue(forKey: ticket)?(failure)
        case .log(_, let text, _): self.lines.append(text)
        case .abandoned(let count): self.abandoned.append(count)
        case .close: self.registrar.close()
        }
    }

    private func ended(_ id: UInt64, _ result: Result<Void, RegistrarError>) {
        var failure: RegistrarError?
        if case .failure(let error) = result { failure = error }
        self.act { $0.ended(id, failure, now: self.now) }
    }

    // MARK: - What there is

    var pendingCount: Int { self.queue.pendingCount }
    var failure: String? { self.queue.failure }
    var isFailing: Bool { self.queue.isFailing }

    /// All public ports that names of other agents must not get yet.
    func leavingPorts(exceptOf identity: String) -> Set<UInt16> {
        Set((1...65_535).filter { self.queue.isLeaving($0, exceptOf: identity) })
    }

    static func exposure(
        _ name: String, of identity: String = "x", payer: String? = nil, port: UInt16 = 4_711
    ) throws -> PublicExposure {
        PublicExposure(
            name: try #require(Name(name)), identity: identity, payer: payer,
            address: SocketAddress("127.0.0.1", port: port))
    }
}
