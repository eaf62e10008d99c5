package import Journal
internal import Logging
package import Metrics
package import Reactor
package import Wire

/// Counters of one registrar's actions.
package struct RegistrarFigures {
    package var failures = Counter()
    /// Resets that replaced withdrawals because too many were pending.
    package var abandonments = Counter()
    package var duration = Histogram(bounds: [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10])
}

/// Performs the actions of one registrar's ``RegistrarQueue``, and reports the results to the queue.
package final class RegistrarDriver {
    private static let late = RegistrarError(reason: "timed out")

    private let loop: EventLoop
    private let registrar: any Registrar
    private let queue: RegistrarQueue
    private let log: PeerLog
    package private(set) var figures = RegistrarFigures()
    /// Running actions, by the queue's id.
    private var running: [UInt64: any Cancellable] = [:]
    /// Callers waiting for a name to be published.
    private var waiting: [Name: (ticket: UInt64, completion: (_ failure: String?) -> Void)] = [:]
    private var timer: LoopTimer?
    private var timerIsFor: UInt64?
    private var isActing = false

    package init(loop: EventLoop, registrar: any Registrar, limits: WithdrawalLimits, log: PeerLog) {
        self.loop = loop
        self.registrar = registrar
        self.log = log
        var traits = RegistrarQueue.Traits(label: registrar.label)
        traits.resetPeriod = registrar.resetPeriod
        traits.resetKeepsNames = registrar.resetKeepsNames
        traits.maxAtOnce = registrar.maxAtOnce
        self.queue = RegistrarQueue(traits, limits: limits)
    }

    package var label: String { self.registrar.label }

    package var isFailing: Bool { self.queue.isFailing }

    /// The latest failure, see ``RegistrarQueue/failure``.
    package var failure: String? { self.queue.failure }

    package var pendingCount: Int { self.queue.pendingCount }

    package func start() {
        self.queue.start()
        self.act()
    }

    package func reconcile() {
        self.queue.reconcile()
        self.act()
    }

    /// `completion` is called once, with nil on success, unless the name is withdrawn or published again first.
    package func publish(_ exposure: PublicExposure, completion: @escaping (_ failure: String?) -> Void) {
        let ticket = self.queue.publish(exposure, now: self.loop.now)
        self.waiting[exposure.name] = (ticket, completion)
        self.act()
    }

    package func withdraw(_ exposure: PublicExposure) {
        self.waiting[exposure.name] = nil
        self.queue.withdraw(exposure, now: self.loop.now)
        self.act()
    }

    /// See ``RegistrarQueue/isFull(for:of:)``.
    package func isFull(for name: Name, of payer: String) -> Bool { self.queue.isFull(for: name, of: payer) }

    /// See ``RegistrarQueue/isLeaving(_:exceptOf:)``.
    package func isLeaving(_ port: UInt16, exceptOf identity: String) -> Bool {
        self.queue.isLeaving(port, exceptOf: identity)
    }

    /// See ``RegistrarQueue/close(now:)``.
    package func close() {
        self.queue.close(now: self.loop.now)
        self.act()
    }

    // MARK: - Actions of the queue

    private func act() {
        // A registrar may answer inside its call, and the answer may cause the next action: the loop below performs it.
        guard !self.isActing else { return }
        self.isActing = true
        while let action = self.queue.popAction() { self.perform(action) }
        self.isActing = false
        self.setTimer()
    }

    private func perform(_ action: RegistrarQueue.Action) {
        switch action {
        case .begin(let work, let id): self.begin(work, id)
        case .cancel(let id): self.running.removeValue(forKey: id)?.cancel()
        case .answer(let name, let ticket, let failure):
            guard let waiting = self.waiting[name], waiting.ticket == ticket else { return }
            self.waiting[name] = nil
            waiting.completion(failure)
        case .log(let level, let text, let exposure): self.write(level, text, exposure)
        case .abandoned(let count):
            self.figures.abandonments.add()
            self.log.write(
                .warning, .detail, of: .registrar(self.label),
                "registrar \(self.label): \(count) names are waiting to be withdrawn; a reset removes them",
                .about([.registrar: self.label]))
        case .close: self.registrar.close()
        }
    }

    private func begin(_ work: RegistrarQueue.Work, _ id: UInt64) {
        switch work {
        case .publish(let exposure): self.run(id) { self.registrar.publish(exposure, completion: $0) }
        case .withdraw(let exposure): self.run(id) { self.registrar.withdraw(exposure, completion: $0) }
        case .reset(let keeping):
            self.run(id, { self.registrar.reset(keeping: keeping, completion: $0) }) { queue, result, now in
                queue.resetEnded(id, result, now: now)
            }
        }
    }

    /// Runs a publication or a withdrawal, and measures how long it takes.
    private func run(
        _ id: UInt64, _ start: (@escaping (Result<Void, RegistrarError>) -> Void) -> (any Cancellable)?
    ) {
        let began = EventLoop.nanoseconds
        self.run(id, start) { [weak self] queue, result, now in
            self?.figures.duration.observe(nanoseconds: EventLoop.nanoseconds &- began)
            if case .failure(let error) = result {
                queue.ended(id, error, now: now)
            } else {
                queue.ended(id, nil, now: now)
            }
        }
    }

    private func run<Answer>(
        _ id: UInt64, _ start: (@escaping (Result<Answer, RegistrarError>) -> Void) -> (any Cancellable)?,
        _ tell: @escaping (RegistrarQueue, Result<Answer, RegistrarError>, UInt64) -> Void
    ) {
        let operation = DeadlinedOperation(
            loop: self.loop, milliseconds: moduleDeadline, late: .failure(Self.late), start: start,
            completion: { [weak self] result in
                guard let self else { return }
                self.running[id] = nil
                if case .failure = result { self.figures.failures.add() }
                tell(self.queue, result, self.loop.now)
                self.act()
            })
        if !operation.isOver { self.running[id] = operation }
    }

    /// Limits lines about a name, which an agent can make fail and succeed as often as it registers it. Lines about the
    /// registrar itself are rare.
    private func write(_ level: RegistrarQueue.Level, _ text: String, _ exposure: PublicExposure?) {
        let level: Logger.Level =
            switch level {
            case .debug: .debug
            case .notice: .notice
            case .warning: .warning
            case .error: .error
            }
        self.log.write(
            level, exposure == nil ? .complete : .detail,
            of: exposure.map { .agent($0.identity) } ?? .registrar(self.label), text,
            .about([.registrar: self.label, .name: exposure?.name, .agent: exposure?.identity]))
    }

    // MARK: - Time

    private func setTimer() {
        guard let deadline = self.queue.nextDeadline else {
            self.timer?.close()
            (self.timer, self.timerIsFor) = (nil, nil)
            return
        }
        guard deadline != self.timerIsFor else { return }
        self.timerIsFor = deadline
        let timer =
            self.timer
            ?? LoopTimer(loop: self.loop) { [weak self] in
                guard let self else { return }
                self.timerIsFor = nil
                self.queue.timerFired(now: self.loop.now)
                self.act()
            }
        self.timer = timer
        timer.start(after: deadline - min(self.loop.now, deadline))
    }
}
