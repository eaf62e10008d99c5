package import Timing
package import Wire

/// What one registrar has to do, name by name and in order; what fails is tried again. It is pure: methods take events
/// and the time, ``popAction()`` returns what follows, and ``RegistrarDriver`` carries that out.
///
/// ```
///            publish                    withdraw
///   (none) ───────────► publishing ───────────────► withdrawing ──► (none)
///                         │    ▲ again, a few times    │    ▲ again, until it is done
///                         └────┘                       └────┘
/// ```
/// A request that comes while an attempt is under way waits for it: a cancelled action may happen all the same, and after
/// the one that was requested later.
///
/// A reset runs alone: it starts when nothing is under way, and requests are held until it is over. One that fails is
/// tried again, as what a former run has left behind may lead to another agent's port.
///
/// ## What one agent can cost another
/// - Agents take turns. Only names that were published before, and are gone after a reset, come before all others.
/// - A name that is given back before its publication began leaves nothing to withdraw (``LeftNames``).
/// - What an agent leaves to be withdrawn counts against it: beyond a bound its new names are refused
///   (``isFull(for:of:)``). Where a reset keeps the names of others, one reset replaces too many withdrawals.
package final class RegistrarQueue {
    /// What the queue has to know of its registrar: see ``Registrar``.
    package struct Traits: Equatable, Sendable {
        package var label: String
        package var resetPeriod: Milliseconds?
        package var resetKeepsNames = true
        package var maxAtOnce: Int?

        package init(label: String) { self.label = label }
    }

    package enum Work: Equatable {
        case publish(PublicExposure)
        case withdraw(PublicExposure)
        case reset(keeping: [PublicExposure])
    }

    package enum Level: Sendable { case debug, notice, warning, error }

    package enum Action: Equatable {
        /// Have the registrar do this. Its answer is one call of `ended` or `resetEnded`.
        case begin(Work, id: UInt64)
        /// The answer is not awaited any more.
        case cancel(id: UInt64)
        /// Tell the agent of a name whether it is published; the ticket is that of `publish`.
        case answer(Name, ticket: UInt64, failure: String?)
        /// About a name, or about the registrar.
        case log(Level, String, PublicExposure?)
        /// The number of withdrawals that were left to the next reset.
        case abandoned(Int)
        /// Everything is done: close the registrar.
        case close
    }

    enum Phase { case working, resetDue, resetting(id: UInt64, keeping: Set<Name>) }

    enum Life {
        /// Names are published after the first reset has ended, successfully or not.
        case starting
        case running
        /// What is left is withdrawn.
        case closing
        /// The registrar is closed; nothing follows.
        case over
    }

    enum Timer: Hashable {
        /// The next attempt of a name's job.
        case attempt(Name)
        case reset
        /// A publication that waits for others has waited for too long.
        case patience
        /// The registrar is closed, even if work remains.
        case end
    }

    /// Attempts to publish a name before its agent is refused; the agent requests it again by itself.
    private static let maxPublishAttempts = 4
    /// How long a name waits for others, which may hang, before its agent is refused.
    private static let patience: Milliseconds = 60_000
    private static let firstPause: Milliseconds = 250
    static let firstResetPause: Milliseconds = 1_000
    static let maxPause: Milliseconds = 30_000
    /// How long the end of the gateway waits for withdrawals.
    private static let lastMilliseconds: Milliseconds = 5_000

    package var traits: Traits
    private let limits: WithdrawalLimits
    /// Those before `firstAction` are carried out.
    private var actions: [Action] = []
    private var firstAction = 0
    var deadlines = Deadlines<Timer>()
    var jobs = RegistrarJobs()
    private var running: [UInt64: RegistrarJob] = [:]
    private var runningWithdrawalCount = 0
    private var waiting = WaitingJobs()
    var phase = Phase.working
    /// Requests that came while a reset was due or under way.
    var held = HeldRequests()
    /// In a row.
    var failedResets = 0
    /// Names that are, or are to be, published.
    var wanted: [Name: PublicExposure] = [:]
    /// Those of `wanted` of which a publication was done.
    private(set) var published: Set<Name> = []
    private var left = LeftNames()
    var leaving = LeavingPorts()
    private var failures = RegistrarFailures()
    var life = Life.starting
    private var lastID: UInt64 = 0

    package init(_ traits: Traits, limits: WithdrawalLimits) {
        self.traits = traits
        self.limits = limits
    }

    // MARK: - What follows

    /// The next thing to do; nil when there is nothing until the next event. Call it after each event until it is nil.
    package func popAction() -> Action? {
        guard self.firstAction < self.actions.count else {
            self.actions.removeAll(keepingCapacity: true)
            self.firstAction = 0
            return nil
        }
        defer { self.firstAction += 1 }
        return self.actions[self.firstAction]
    }

    /// When `timerFired` is to be called.
    package var nextDeadline: Milliseconds? { self.deadlines.next }

    package var isFailing: Bool { !self.failures.isEmpty }

    /// The latest of what has failed and was not done since.
    package var failure: String? { self.failures.latest }

    /// Of requests.
    package var pendingCount: Int { self.jobs.all.count + self.held.count }

    func emit(_ action: Action) { self.actions.append(action) }

    func newID() -> UInt64 {
        self.lastID += 1
        return self.lastID
    }

    // MARK: - Names

    /// - Returns: the ticket with which the answer comes. A later request for the name replaces this one; then no answer
    ///   comes.
    package func publish(_ exposure: PublicExposure, now: Milliseconds) -> UInt64 {
        let ticket = self.newID()
        self.wanted[exposure.name] = exposure
        self.published.remove(exposure.name)
        self.left.wanted(exposure.name)
        self.request(.publish(exposure, ticket: ticket), now)
        return ticket
    }

    /// The name is given back. Nothing happens when its publication was refused before.
    package func withdraw(_ exposure: PublicExposure, now: Milliseconds) {
        guard self.wanted.removeValue(forKey: exposure.name) != nil else { return }
        self.giveBack(exposure, now)
    }

    private func giveBack(_ exposure: PublicExposure, _ now: Milliseconds) {
        let name = exposure.name
        self.published.remove(name)
        guard self.left.givenBack(name, by: exposure.payer) else {
            self.held.remove(name)
            guard let job = self.jobs[name] else { return }
            self.stopWaiting(job)
            return self.finish(job)
        }
        // No proxy sends visitors to a port before its publication has begun.
        if !self.waits(name) { self.leaving.withdrawn(exposure) }
        self.request(.withdraw(exposure), now)
    }

    /// Whether the latest request for a name has not begun.
    private func waits(_ name: Name) -> Bool {
        self.held.contains(name) || self.jobs[name].map { $0.next != nil || $0.attempts == 0 } ?? false
    }

    /// Whether an agent can have a further name only after some of those that it has left were withdrawn. The fewer
    /// withdrawals there is room for, the fewer one agent may leave, so that a few agents do not take all the room.
    package func isFull(for name: Name, of payer: String) -> Bool {
        // A name that must be withdrawn anyway adds nothing.
        guard !self.traits.resetKeepsNames, !self.left.contains(name) else { return false }
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

    func request(_ request: RegistrarRequest, _ now: Milliseconds) {
        guard self.life != .over else { return }
        guard self.life != .starting, case .working = self.phase else { return self.held.hold(request) }
        guard let job = self.jobs[request.name] else { return self.begin(request, now) }
        guard !job.isUnderWay else { return job.next = request }
        self.stopWaiting(job)
        self.begin(request, now)
    }

    func begin(_ request: RegistrarRequest, _ now: Milliseconds) {
        if case .withdraw = request { self.abandonWithdrawals(now) }
        let job = RegistrarJob(request)
        self.jobs[request.name] = job
        self.attempt(job, now)
    }

    /// Leaves withdrawals that wait to a reset, if they are too many and a reset does no harm.
    private func abandonWithdrawals(_ now: Milliseconds) {
        // Those under way cannot be called off; each is over within ten seconds.
        let count = self.jobs.withdrawalCount - self.runningWithdrawalCount
        guard self.traits.resetKeepsNames, self.life != .closing, count >= self.limits.total else { return }
        self.waiting.removeWithdrawals()
        var names: [Name] = []
        for (name, job) in self.jobs.all where !job.isUnderWay {
            guard case .withdraw = job.request else { continue }
            self.deadlines.remove(.attempt(name))
            self.jobs[name] = nil
            self.left.gone(name)
            self.leaving.abandon(name)
            names.append(name)
        }
        self.failures.abandoned(names)
        self.emit(.abandoned(names.count))
        if case .working = self.phase { self.deadlines.set(.reset, at: now + Self.firstResetPause) }
    }

    /// Whether no name's attempt is under way.
    var isIdle: Bool { self.running.isEmpty }

    private var hasRoom: Bool { self.running.count < self.traits.maxAtOnce ?? .max }

    /// - Parameter isNext: whether it has waited for its turn.
    func attempt(_ job: RegistrarJob, isNext: Bool = false, _ now: Milliseconds) {
        self.deadlines.remove(.attempt(job.request.name))
        guard case .working = self.phase else { return }
        guard self.hasRoom, isNext || self.waiting.isEmpty else {
            self.waiting.append(job, now: now)
            if self.deadlines[.patience] == nil { self.deadlines.set(.patience, at: now + Self.patience) }
            return
        }
        let id = self.newID()
        self.running[id] = job
        job.attempts += 1
        job.isUnderWay = true
        switch job.request {
        case .publish(let exposure, _):
            self.left.publicationBegan(exposure.name)
            self.emit(.begin(.publish(exposure), id: id))
        case .withdraw(let exposure):
            self.runningWithdrawalCount += 1
            self.emit(.begin(.withdraw(exposure), id: id))
        }
    }

    /// Those that wait for others to be done.
    func attemptNext(_ now: Milliseconds) {
        while case .working = self.phase, self.hasRoom, let job = self.waiting.popFirst() {
            self.attempt(job, isNext: true, now)
        }
    }

    /// The registrar has published or withdrawn a name, or failed to.
    package func ended(_ id: UInt64, _ error: RegistrarError?, now: Milliseconds) {
        guard let job = self.stopRunning(id) else { return }
        self.ended(job, error, now)
        self.resetIfIdle()
        self.attemptNext(now)
    }

    private func stopRunning(_ id: UInt64) -> RegistrarJob? {
        guard let job = self.running.removeValue(forKey: id) else { return nil }
        job.isUnderWay = false
        if case .withdraw = job.request { self.runningWithdrawalCount -= 1 }
        return job
    }

    private func ended(_ job: RegistrarJob, _ error: RegistrarError?, _ now: Milliseconds) {
        let name = job.request.name
        self.note(error, job.request.action, "\(job.request.verb) '\(name)'", job.request.exposure)
        if error == nil {
            switch job.request {
            case .withdraw:
                self.left.gone(name)
                self.leaving.moved(name)
            // One that was under way when the name was withdrawn leads to the old place.
            case .publish(let exposure, _) where self.wanted[name] == exposure:
                self.published.insert(name)
                self.leaving.moved(name)
            case .publish: break
            }
        }
        if let next = job.next {
            self.jobs[name] = nil
            return self.begin(next, now)
        }
        guard let error else {
            self.finish(job)
            if case .publish(_, .some(let ticket)) = job.request {
                self.emit(.answer(name, ticket: ticket, failure: nil))
            }
            return
        }
        if case .publish(let exposure, .some(let ticket)) = job.request, job.attempts >= Self.maxPublishAttempts {
            let text = "registrar \(self.traits.label): cannot publish '\(name)': \(error.reason)"
            return self.refuse(job, exposure, ticket, error.reason, text, now)
        }
        let pause = min(Self.firstPause << UInt64(min(job.attempts - 1, 10)), Self.maxPause)
        self.deadlines.set(.attempt(name), at: now + pause)
    }

    /// Gives up a publication; its agent may request it again.
    private func refuse(
        _ job: RegistrarJob, _ exposure: PublicExposure, _ ticket: UInt64, _ reason: String, _ text: String,
        _ now: Milliseconds
    ) {
        self.emit(.log(.warning, text, exposure))
        self.wanted[exposure.name] = nil
        self.jobs[exposure.name] = nil
        self.emit(.answer(exposure.name, ticket: ticket, failure: reason))
        // Half of it may have been done.
        self.giveBack(exposure, now)
        self.closeIfDone()
    }

    func stopWaiting(_ job: RegistrarJob) {
        self.waiting.remove(job)
        self.deadlines.remove(.attempt(job.request.name))
    }

    private func finish(_ job: RegistrarJob) {
        self.jobs[job.request.name] = nil
        self.closeIfDone()
    }

    // MARK: - Time

    /// Call it when ``nextDeadline`` has come.
    package func timerFired(now: Milliseconds) {
        while let timer = self.deadlines.popDue(now: now) {
            switch timer {
            case .attempt(let name): if let job = self.jobs[name] { self.attempt(job, now) }
            case .reset: self.reset()
            case .patience: self.refuseLate(now)
            case .end:
                self.emit(.log(.error, "registrar \(self.traits.label): stale names could not be removed", nil))
                for id in self.running.keys.sorted() { self.emit(.cancel(id: id)) }
                self.running = [:]
                self.runningWithdrawalCount = 0
                self.jobs.removeAll()
                self.waiting.removeAll()
                self.emitClose()
            }
        }
    }

    private func refuseLate(_ now: Milliseconds) {
        for job in self.waiting.removePublications(since: now - min(Self.patience, now)) {
            guard case .publish(let exposure, .some(let ticket)) = job.request else { continue }
            let text = "registrar \(self.traits.label): publishing '\(exposure.name)' timed out in the queue"
            self.refuse(job, exposure, ticket, "the registrar is busy with other names", text, now)
        }
        if let oldest = self.waiting.oldestPublication { self.deadlines.set(.patience, at: oldest + Self.patience) }
    }

    // MARK: - What fails

    /// Notes a failure or that something works again.
    func note(
        _ error: RegistrarError?, _ action: RegistrarFailures.Action, _ what: String, _ exposure: PublicExposure?
    ) {
        let isWanted = { self.wanted[$0] != nil }
        guard let error else {
            if self.failures.succeeded(action, isWanted: isWanted) {
                self.emit(.log(.notice, "registrar \(self.traits.label) works again", exposure))
            }
            return
        }
        let text = "registrar \(self.traits.label): cannot \(what): \(error.reason)"
        // What fails again and again in the same way is logged once.
        let isNew = self.failures.failed(action, text, isWanted: isWanted)
        self.emit(.log(isNew ? .error : .debug, text, exposure))
    }

    // MARK: - The end

    /// The registrar is closed when the last withdrawal is done, or after a while.
    package func close(now: Milliseconds) {
        guard self.life == .starting || self.life == .running else { return }
        let hasBegun = self.life == .running
        self.life = .closing
        if self.leaving.needReset {
            let text = "registrar \(self.traits.label): stale names were not removed; the next start removes them"
            self.emit(.log(.error, text, nil))
        }
        self.deadlines.remove(.reset)
        if case .resetting(let id, _) = self.phase { self.emit(.cancel(id: id)) }
        self.phase = .working
        let held = self.held.take()
        // A publication that hangs would take all the time that is left.
        for (id, job) in self.running.sorted(by: { $0.key < $1.key }) {
            guard case .publish = job.request, let next = job.next else { continue }
            _ = self.stopRunning(id)
            self.emit(.cancel(id: id))
            self.jobs[job.request.name] = nil
            self.begin(next, now)
        }
        // Before the first reset has ended nothing was published that could be taken back.
        if hasBegun { self.resume(held, now) }
        self.deadlines.set(.end, at: now + Self.lastMilliseconds)
        self.closeIfDone()
    }

    private func closeIfDone() {
        guard self.life == .closing, self.deadlines[.end] != nil, self.jobs.all.isEmpty else { return }
        self.emitClose()
    }

    private func emitClose() {
        self.life = .over
        self.deadlines.removeAll()
        self.emit(.close)
    }
}
