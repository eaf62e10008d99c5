internal import Control
package import Journal
internal import Logging
internal import Metrics
package import Modules
package import Reactor
package import Wire

/// Has one registrar do what is wanted, name by name and in order, and tries again what fails.
///
/// ```
///            publish                    withdraw
///   (none) ───────────► publishing ───────────────► withdrawing ──► (none)
///                         │    ▲ again, a few times    │    ▲ again, until it is done
///                         └────┘                       └────┘
/// ```
/// A wish that comes while an attempt is under way waits for that attempt: an action that is called off may happen all
/// the same, and after the one that was wanted later.
///
/// A reset bears nothing beside it: it waits until nothing is under way, and what is wanted meanwhile is held until it
/// is over. One that fails is tried again, as what a former run has left behind may lead to somebody else's port.
///
/// ## What one agent can cost another
/// - Agents take turns. Only names that were published before, and are gone after a reset, come before all others.
/// - A name that is given back before its publication began leaves nothing to withdraw (``LeftNames``).
/// - What an agent leaves to be withdrawn counts against it: beyond a bound its new names are refused (``isFull``).
///   Where a reset keeps the names of others, one reset takes the place of too many withdrawals instead.
package final class RegistrarDriver {
    enum Phase { case working, resetDue, resetting }

    /// Attempts to publish a name before its agent is told that it cannot be had now; it asks again by itself.
    private static let publishAttempts = 4
    /// How long a name waits for others before its agent is told: they may hang.
    private static let mostWaitMilliseconds: UInt64 = 60_000
    private static let firstPause: UInt64 = 250
    static let firstResetPause: UInt64 = 1_000
    static let mostPause: UInt64 = 30_000
    /// How long the end of the gateway waits for withdrawals.
    private static let lastMilliseconds: UInt64 = 5_000

    let loop: EventLoop
    let registrar: any Registrar
    private let limits: WithdrawalLimits
    let log: PeerLog
    /// For what no agent causes.
    var logger: Logger { self.log.logger }
    var figures = RegistrarFigures()
    var jobs = RegistrarJobs()
    /// Attempts under way, and those of them that withdraw.
    var runningCount = 0
    private var runningWithdrawalCount = 0
    private var waitingJobs = WaitingJobs()
    var phase = Phase.working
    /// Wishes that came while a reset was due or under way.
    var held = HeldWishes()
    var resetting: (any Cancellable)?
    var resetTimer: LoopTimer?
    /// In a row.
    var failedResets = 0
    /// Names are let through as soon as the first reset has an answer, whichever.
    var hasBegun = false
    /// What shall be published now.
    var wanted: [Name: PublicExposure] = [:]
    private var left = LeftNames()
    var leaving = LeavingPlaces()
    var failures = RegistrarFailures()
    private var lastTimer: LoopTimer?
    var isClosing = false

    package init(loop: EventLoop, registrar: any Registrar, limits: WithdrawalLimits, log: PeerLog) {
        self.loop = loop
        self.registrar = registrar
        self.limits = limits
        self.log = log
    }

    var label: String { self.registrar.label }

    package var isFailing: Bool { !self.failures.isEmpty }

    /// The latest of what has failed and was not done since.
    package var failure: String? { self.failures.latest }

    private func stop(_ job: RegistrarJob) {
        self.waitingJobs.remove(job)
        job.stop()
    }

    // MARK: - Names

    /// `completion` is called once, unless the name is withdrawn before.
    package func publish(_ exposure: PublicExposure, completion: @escaping (_ failure: String?) -> Void) {
        self.wanted[exposure.name] = exposure
        self.left.wanted(exposure.name)
        self.want(.publish(exposure, completion: completion))
    }

    package func withdraw(_ exposure: PublicExposure) {
        let name = exposure.name
        self.wanted[name] = nil
        guard self.left.givenBack(name, by: exposure.payer) else {
            self.held.remove(name)
            guard let job = self.jobs[name] else { return }
            self.stop(job)
            return self.finish(job)
        }
        // No proxy sends visitors to a port before its publication has begun.
        if !self.waits(name) { self.leaving.withdrawn(exposure) }
        self.want(.withdraw(exposure))
    }

    /// Whether the latest request for a name has not begun.
    private func waits(_ name: Name) -> Bool {
        self.held.contains(name) || self.jobs[name].map { $0.next != nil || $0.attempts == 0 } ?? false
    }

    /// Whether an agent can have a further name only after some of those that it has left were withdrawn. The fewer
    /// withdrawals there is room for, the fewer one agent may leave, so that a few agents do not take all the room.
    package func isFull(for name: Name, of payer: String) -> Bool {
        // A name that must be withdrawn anyway adds nothing.
        guard !self.registrar.resetKeepsNames, !self.left.contains(name) else { return false }
        let free = max(self.limits.total - self.left.total, 0)
        return self.left.count(of: payer) >= min(self.limits.perAgent, free)
    }

    /// Whether a public port was that of a name that is gone, to which a proxy may lead visitors as long as the name is
    /// neither taken back nor leads elsewhere: another agent's name there would get them.
    ///
    /// - Parameter identity: the agent whose own it may be.
    package func isLeaving(_ port: UInt16, exceptOf identity: String) -> Bool {
        self.leaving.contains(port, exceptOf: identity)
    }

    func want(_ wish: RegistrarWish) {
        guard self.hasBegun, self.phase == .working else { return self.held.hold(wish) }
        let name = wish.name
        guard let job = self.jobs[name] else { return self.begin(wish) }
        guard job.operation == nil else { return job.next = wish }
        self.stop(job)
        self.begin(wish)
    }

    func about(_ exposure: PublicExposure? = nil) -> Logger.Metadata {
        .about([.registrar: self.registrar.label, .name: exposure?.name, .agent: exposure?.identity])
    }

    func begin(_ wish: RegistrarWish) {
        if case .withdraw = wish { self.abandonWithdrawals() }
        let job = RegistrarJob(wish)
        self.jobs[wish.name] = job
        self.attempt(job)
    }

    /// Has a reset take back what waits to be withdrawn, if that is too much and a reset does no harm.
    private func abandonWithdrawals() {
        // Those under way cannot be called off; each is over within ten seconds.
        let count = self.jobs.withdrawalCount - self.runningWithdrawalCount
        guard self.registrar.resetKeepsNames, !self.isClosing, count >= self.limits.total else { return }
        self.figures.abandonments.add()
        self.waitingJobs.removeWithdrawals()
        var names: [Name] = []
        for (name, job) in self.jobs.all where job.operation == nil {
            guard case .withdraw = job.wish else { continue }
            job.stop()
            self.jobs[name] = nil
            self.left.gone(name)
            self.leaving.abandon(name)
            names.append(name)
        }
        self.failures.abandoned(names)
        self.log.write(
            .warning, .detail, of: .registrar(self.registrar.label),
            "\(names.count) names wait to be withdrawn by the registrar \(self.registrar.label): a reset removes them",
            self.about())
        if self.phase == .working { self.resetLater(Self.firstResetPause) }
    }

    /// - Parameter isNext: whether it has waited for its turn.
    func attempt(_ job: RegistrarJob, isNext: Bool = false) {
        job.timer?.close()
        job.timer = nil
        guard self.phase == .working else { return }
        guard self.runningCount < self.registrar.mostAtOnce ?? .max, isNext || self.waitingJobs.isEmpty else {
            return self.waitingJobs.append(job, now: self.loop.now)
        }
        self.runningCount += 1
        switch job.wish {
        case .publish(let exposure, _): self.left.publicationBegan(exposure.name)
        case .withdraw: self.runningWithdrawalCount += 1
        }
        job.attempts += 1
        job.began = EventLoop.nanoseconds
        let operation = DeadlinedOperation(
            loop: self.loop, milliseconds: GatewayServer.moduleDeadline, late: .failure(Self.late),
            start: { completion in
                switch job.wish {
                case .publish(let exposure, _): self.registrar.publish(exposure, completion: completion)
                case .withdraw(let exposure): self.registrar.withdraw(exposure, completion: completion)
                }
            },
            completion: { [weak self] result in
                job.operation = nil
                self?.runningCount -= 1
                if case .withdraw = job.wish { self?.runningWithdrawalCount -= 1 }
                self?.answered(job, result)
                self?.resetIfIdle()
                self?.attemptNext()
            })
        if !operation.isOver { job.operation = operation }
    }

    /// Those that wait for others to be done.
    func attemptNext() {
        while self.phase == .working, self.runningCount < self.registrar.mostAtOnce ?? .max,
            let job = self.waitingJobs.popFirst()
        { self.attempt(job, isNext: true) }
    }

    /// Tells the agents of names that have waited for long; call it about once a second.
    package func tick(now: UInt64) {
        guard now >= Self.mostWaitMilliseconds else { return }
        for job in self.waitingJobs.removePublications(since: now - Self.mostWaitMilliseconds) {
            // The answer to one may have ended another.
            guard case .publish(let exposure, .some(let completion)) = job.wish, self.jobs[exposure.name] === job
            else { continue }
            self.log.write(
                .warning, .detail, of: .agent(exposure.identity),
                "'\(exposure.name)' has waited too long for the registrar \(self.registrar.label)",
                self.about(exposure))
            self.wanted[exposure.name] = nil
            self.finish(job)
            completion("others are published first")
        }
    }

    private func answered(_ job: RegistrarJob, _ result: Result<Void, RegistrarError>) {
        let name = job.wish.name
        self.figures.duration.observe(nanoseconds: EventLoop.nanoseconds &- job.began)
        self.note(
            result, job.wish.action, "\(job.wish.verb) '\(name)'", job.wish.exposure)
        if case .success = result {
            if case .withdraw = job.wish { self.left.gone(name) }
            if self.hasMoved(job.wish) { self.leaving.moved(name) }
        }
        if let next = job.next {
            self.jobs[name] = nil
            return self.begin(next)
        }
        switch (job.wish, result) {
        case (.publish(_, let completion), .success):
            self.finish(job)
            completion?(nil)
        case (.withdraw, .success): self.finish(job)
        case (.publish(let exposure, .some(let completion)), .failure(let error))
        where job.attempts >= Self.publishAttempts:
            self.log.write(
                .warning, .detail, of: .agent(exposure.identity),
                "'\(name)' cannot be published by the registrar \(self.registrar.label) now: \(error.reason)",
                self.about(exposure))
            self.wanted[name] = nil
            self.finish(job)
            completion(error.reason)
            // Half of it may have been done.
            if self.wanted[name] == nil, !self.left.contains(name) { self.withdraw(exposure) }
        case (_, .failure):
            let pause = min(Self.firstPause << UInt64(min(job.attempts - 1, 10)), Self.mostPause)
            let timer = LoopTimer(loop: self.loop) { [weak self] in self?.attempt(job) }
            timer.start(after: pause)
            job.timer = timer
        }
    }

    /// Whether a wish that was done has the name lead elsewhere than where it was withdrawn from.
    private func hasMoved(_ wish: RegistrarWish) -> Bool {
        switch wish {
        case .withdraw: true
        // One that was under way when the name was withdrawn leads to the old place.
        case .publish(let exposure, _): self.wanted[exposure.name] == exposure
        }
    }

    private func finish(_ job: RegistrarJob) {
        self.jobs[job.wish.name] = nil
        self.closeIfDone()
    }

    // MARK: - The end

    /// Closes the registrar when the last withdrawal is done, or after a while.
    package func close() {
        guard !self.isClosing else { return }
        self.isClosing = true
        if self.leaving.needReset {
            self.logger.error(
                "registrar \(self.registrar.label): stale names were not removed; the next start removes them",
                metadata: self.about())
        }
        self.resetTimer?.close()
        self.resetTimer = nil
        self.resetting?.cancel()
        self.resetting = nil
        self.phase = .working
        let held = self.held.take()
        // A publication that hangs would take all the time that is left.
        for (name, job) in self.jobs.all {
            guard case .publish = job.wish, job.operation != nil, let next = job.next else { continue }
            self.stop(job)
            self.runningCount -= 1
            self.jobs[name] = nil
            self.begin(next)
        }
        // Before the first reset has ended nothing was published that could be taken back.
        if self.hasBegun {
            self.resumeJobs()
            for wish in held { self.want(wish) }
        }
        let timer = LoopTimer(loop: self.loop) { [weak self] in
            guard let self else { return }
            self.logger.error(
                "the registrar \(self.registrar.label) is left with names that are gone", metadata: self.about())
            self.jobs.all.values.forEach { $0.stop() }
            self.jobs.removeAll()
            self.waitingJobs.removeAll()
            self.closeIfDone()
        }
        timer.start(after: Self.lastMilliseconds)
        self.lastTimer = timer
        self.closeIfDone()
    }

    private func closeIfDone() {
        guard self.jobs.all.isEmpty, let timer = self.lastTimer else { return }
        timer.close()
        self.lastTimer = nil
        self.registrar.close()
    }
}
