internal import Control
package import Journal
internal import Logging
internal import Metrics
package import Modules
package import Reactor
internal import Wire

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
package final class RegistrarDriver {
    private enum Phase { case working, resetDue, resetting }

    /// Attempts to publish a name before its agent is told that it cannot be had now; it asks again by itself.
    private static let publishAttempts = 4
    /// How long a name waits for others before its agent is told: they may hang.
    private static let mostWaitMilliseconds: UInt64 = 60_000
    private static let firstPause: UInt64 = 250
    private static let firstResetPause: UInt64 = 1_000
    private static let mostPause: UInt64 = 30_000
    /// Withdrawals that wait or are retried. Beyond that number one reset replaces them all: an agent that registers one
    /// name after the other while a registrar is unreachable must not fill the memory.
    package static let mostWithdrawals = 4_096
    /// How long the end of the gateway waits for withdrawals.
    private static let lastMilliseconds: UInt64 = 5_000

    private let loop: EventLoop
    private let registrar: any Registrar
    private let log: PeerLog
    /// For what no agent causes.
    private var logger: Logger { self.log.logger }
    private(set) var figures = RegistrarFigures()
    private var jobs = RegistrarJobs()
    /// Attempts under way.
    private var runningCount = 0
    /// In the order in which they came; those that wait no more are passed over.
    private var waitingJobs: [RegistrarJob] = []
    private var phase = Phase.working
    /// Wishes that came while a reset was due or under way.
    private var held = HeldWishes()
    private var resetting: (any Cancellable)?
    private var resetTimer: LoopTimer?
    /// In a row.
    private var failedResets = 0
    /// Names are let through as soon as the first reset has an answer, whichever.
    private var hasBegun = false
    /// What shall be published now.
    private var wanted: [Name: PublicExposure] = [:]
    private var leaving = LeavingPlaces()
    private var failures = RegistrarFailures()
    private var lastTimer: LoopTimer?
    private var isClosing = false

    package init(loop: EventLoop, registrar: any Registrar, log: PeerLog) {
        self.loop = loop
        self.registrar = registrar
        self.log = log
    }

    var label: String { self.registrar.label }

    package var isFailing: Bool { !self.failures.isEmpty }

    /// The latest of what has failed and was not done since.
    package var failure: String? { self.failures.latest }

    // MARK: - Resets

    package func start() { self.reset() }

    /// Puts right what others have undone, where that can happen, and what a former reset could not do.
    package func reconcile() {
        guard self.hasBegun, self.failedResets > 0 || self.registrar.resetPeriod != nil else { return }
        self.reset()
    }

    private func reset() {
        guard self.phase == .working, !self.isClosing else { return }
        self.resetTimer?.close()
        self.resetTimer = nil
        self.phase = .resetDue
        self.resetIfIdle()
    }

    private func resetIfIdle() {
        guard self.phase == .resetDue, self.jobs.all.values.allSatisfy({ $0.operation == nil }) else { return }
        self.phase = .resetting
        self.leaving.resetBegan()
        let keeping = self.wanted.values.sorted { $0.name.text < $1.name.text }
        let operation = DeadlinedOperation(
            loop: self.loop, milliseconds: GatewayServer.moduleDeadline, late: .failure(Self.late),
            start: { self.registrar.reset(keeping: keeping, completion: $0) },
            completion: { [weak self] result in self?.wasReset(result) })
        if !operation.isOver { self.resetting = operation }
    }

    private static let late = RegistrarError(reason: "did not answer in time")

    private func wasReset(_ result: Result<[PublicExposure], RegistrarError>) {
        self.resetting = nil
        self.phase = .working
        self.note(
            result.map { _ in () }, .reset, self.hasBegun ? "look after its names" : "clean up after a former run")
        self.hasBegun = true
        let heldNames = self.held.names
        let held = self.held.take()
        switch result {
        // A name that was withdrawn during the reset was still to be kept.
        case .success: self.leaving.resetSucceeded { self.wanted[$0] != nil || heldNames.contains($0) }
        case .failure: self.leaving.resetFailed()
        }
        self.resumeJobs()
        switch result {
        case .success(let missing):
            self.failedResets = 0
            self.publishAgain(missing, except: heldNames)
            if self.leaving.needReset {
                self.resetLater(Self.firstResetPause)
            } else if let period = self.registrar.resetPeriod {
                self.resetLater(period)
            }
        case .failure:
            self.resetLater(min(Self.firstResetPause << UInt64(min(self.failedResets, 10)), Self.mostPause))
            self.failedResets += 1
        }
        for wish in held { self.want(wish) }
    }

    private func resetLater(_ pause: UInt64) {
        self.resetTimer?.close()
        let timer = LoopTimer(loop: self.loop) { [weak self] in self?.reset() }
        timer.start(after: pause)
        self.resetTimer = timer
    }

    /// Those that came to their next attempt while a reset was due.
    private func resumeJobs() {
        for job in self.jobs.all.values.filter({ $0.operation == nil && $0.timer == nil && $0.waitingSince == nil }) {
            self.attempt(job)
        }
        self.attemptNext()
    }

    private func publishAgain(_ missing: [PublicExposure], except held: Set<Name>) {
        let lost = missing.filter {
            self.wanted[$0.name] != nil && self.jobs[$0.name] == nil && !held.contains($0.name)
        }
        guard !lost.isEmpty else { return }
        self.logger.notice(
            "publishing again by the registrar \(self.registrar.label): \(lost.map(\.name.text).joined(separator: ", "))",
            metadata: self.about())
        for exposure in lost { self.begin(.publish(exposure, completion: nil)) }
    }

    // MARK: - Names

    /// `completion` is called once, unless the name is withdrawn before.
    package func publish(_ exposure: PublicExposure, completion: @escaping (_ failure: String?) -> Void) {
        self.wanted[exposure.name] = exposure
        self.want(.publish(exposure, completion: completion))
    }

    package func withdraw(_ exposure: PublicExposure) {
        self.wanted[exposure.name] = nil
        self.leaving.withdrawn(exposure)
        self.want(.withdraw(exposure))
    }

    /// Public ports of names that are gone, to which a proxy may lead visitors as long as the name is neither taken back
    /// nor leads elsewhere: another agent's name there would get them.
    ///
    /// - Parameter identity: the agent whose own they may be.
    package func leavingPorts(exceptOf identity: String) -> Set<UInt16> {
        self.leaving.ports(exceptOf: identity)
    }

    private func want(_ wish: RegistrarWish) {
        guard self.hasBegun, self.phase == .working else { return self.held.hold(wish) }
        let name = wish.name
        guard let job = self.jobs[name] else { return self.begin(wish) }
        guard job.operation == nil else { return job.next = wish }
        job.stop()
        self.begin(wish)
    }

    private func about(_ exposure: PublicExposure? = nil) -> Logger.Metadata {
        .about([.registrar: self.registrar.label, .name: exposure?.name, .agent: exposure?.identity])
    }

    private func begin(_ wish: RegistrarWish) {
        if case .withdraw = wish, self.jobs.withdrawalCount >= Self.mostWithdrawals { self.abandonWithdrawals() }
        let job = RegistrarJob(wish)
        self.jobs[wish.name] = job
        self.attempt(job)
    }

    /// Has a reset take back what waits to be withdrawn.
    private func abandonWithdrawals() {
        guard !self.isClosing else { return }
        self.figures.abandonments.add()
        var names: [Name] = []
        for (name, job) in self.jobs.all where job.operation == nil {
            guard case .withdraw = job.wish else { continue }
            job.stop()
            self.jobs[name] = nil
            self.leaving.abandon(name)
            names.append(name)
        }
        self.waitingJobs.removeAll { $0.waitingSince == nil }
        self.failures.abandoned(names)
        self.logger.warning(
            "\(names.count) names wait to be withdrawn by the registrar \(self.registrar.label): a reset removes them",
            metadata: self.about())
        if self.phase == .working { self.resetLater(Self.firstResetPause) }
    }

    /// - Parameter isNext: whether it has waited for its turn.
    private func attempt(_ job: RegistrarJob, isNext: Bool = false) {
        job.timer?.close()
        job.timer = nil
        guard self.phase == .working else { return }
        guard self.runningCount < self.registrar.mostAtOnce ?? .max, isNext || self.nextWaiting == nil else {
            job.waitingSince = self.loop.now
            return self.waitingJobs.append(job)
        }
        self.runningCount += 1
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
                self?.answered(job, result)
                self?.resetIfIdle()
                self?.attemptNext()
            })
        if !operation.isOver { job.operation = operation }
    }

    /// Those that wait for others to be done.
    private func attemptNext() {
        while self.phase == .working, self.runningCount < self.registrar.mostAtOnce ?? .max, let job = self.nextWaiting
        {
            self.waitingJobs.removeFirst()
            job.waitingSince = nil
            self.attempt(job, isNext: true)
        }
    }

    /// The first that waits for others to be done; those that do not any more are forgotten.
    private var nextWaiting: RegistrarJob? {
        if let index = self.waitingJobs.firstIndex(where: { $0.waitingSince != nil }) {
            self.waitingJobs.removeFirst(index)
        } else {
            self.waitingJobs.removeAll()
        }
        return self.waitingJobs.first
    }

    /// Tells the agents of names that have waited for long; call it about once a second.
    package func tick(now: UInt64) {
        while let job = self.nextWaiting, let since = job.waitingSince {
            // What is told here may bring further ones, which are younger than `now`.
            guard since + Self.mostWaitMilliseconds <= now else { return }
            self.waitingJobs.removeFirst()
            guard case .publish(let exposure, .some(let completion)) = job.wish else {
                // Nobody is to be told of others: they go on waiting.
                job.waitingSince = now
                self.waitingJobs.append(job)
                continue
            }
            self.log.write(
                .warning, .detail, of: .agent(exposure.identity),
                "'\(exposure.name)' has waited too long for the registrar \(self.registrar.label)",
                self.about(exposure))
            self.wanted[exposure.name] = nil
            job.waitingSince = nil
            self.finish(job)
            completion("others are published first")
        }
    }

    private func answered(_ job: RegistrarJob, _ result: Result<Void, RegistrarError>) {
        let name = job.wish.name
        self.figures.duration.observe(nanoseconds: EventLoop.nanoseconds &- job.began)
        self.note(
            result, job.wish.action, "\(job.wish.verb) '\(name)'", job.wish.exposure)
        if case .success = result, self.hasMoved(job.wish) { self.leaving.moved(name) }
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
            if self.jobs[name] == nil { self.want(.withdraw(exposure)) }
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

    // MARK: - What fails

    /// Says when it begins to fail and when it works again.
    private func note(
        _ result: Result<Void, RegistrarError>, _ action: RegistrarFailures.Action, _ what: String,
        _ exposure: PublicExposure? = nil
    ) {
        let isWanted = { self.wanted[$0] != nil }
        switch result {
        case .success:
            if self.failures.succeeded(action, isWanted: isWanted) {
                self.say(.notice, "the registrar \(self.registrar.label) works again", exposure)
            }
        case .failure(let error):
            self.figures.failures.add()
            let text = "the registrar \(self.registrar.label) cannot \(what): \(error.reason)"
            // What fails again and again in the same way is said once.
            let level = self.failures.failed(action, text, isWanted: isWanted) ? Logger.Level.error : .debug
            self.say(level, text, exposure)
        }
    }

    /// An agent can make a name fail and succeed as often as it registers it.
    private func say(_ level: Logger.Level, _ text: String, _ exposure: PublicExposure?) {
        guard let exposure else { return self.logger.log(level: level, "\(text)", metadata: self.about()) }
        self.log.write(level, .detail, of: .agent(exposure.identity), text, self.about(exposure))
    }

    /// Of wishes.
    package var pendingCount: Int { self.jobs.all.count + self.held.count }

    var report: GatewayReport.Registrar {
        GatewayReport.Registrar(name: self.registrar.label, failure: self.failure, pending: self.pendingCount)
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
            job.stop()
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
            self.waitingJobs = []
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
