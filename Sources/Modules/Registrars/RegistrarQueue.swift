package import Timing
package import Wire

/// Decides what one registrar publishes, withdraws and resets, and when: requests for a name run in order, and failed
/// ones are retried. It is pure: methods take events and the time, ``popAction()`` returns the resulting actions, and
/// ``RegistrarDriver`` performs them.
///
/// ```
///            publish                    withdraw
///   (none) ───────────► publishing ───────────────► withdrawing ──► (none)
///                         │    ▲ retry, a few times     │    ▲ retry, until it succeeds
///                         └────┘                        └────┘
/// ```
/// A request that arrives while an attempt is running waits until the attempt has ended. Cancelling the attempt would
/// not be safe: a cancelled action may still take effect, and after the newer one.
///
/// A reset runs alone: it starts when no attempt is running, and requests are held until it has ended. A failed reset
/// is retried, because a route left by a former run may lead to another agent's port.
///
/// ## What one agent can cost others
/// - Agents are served round robin. Only names that were published before and that a reset found missing take
///   precedence.
/// - A name that is given back before its publication began needs no withdrawal (``LeftNames``).
/// - Pending withdrawals count against the agent that caused them: above a limit, its new names are refused
///   (``isFull(for:of:)``). If a reset keeps the names of others, one reset replaces the withdrawals when there are too
///   many.
package final class RegistrarQueue {
    /// The properties of the registrar that the queue needs; see ``Registrar``.
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
        /// Start this work. Report its result by one call of `ended` or `resetEnded`.
        case begin(Work, id: UInt64)
        /// Cancel this work; no result is expected.
        case cancel(id: UInt64)
        /// Report to the agent whether its name is published; the ticket is that of `publish`.
        case answer(Name, ticket: UInt64, failure: String?)
        /// Log a line, about a name or about the registrar itself.
        case log(Level, String, PublicExposure?)
        /// This many withdrawals were left to the next reset.
        case abandoned(Int)
        /// All work has ended: close the registrar.
        case close
    }

    enum Phase { case working, resetDue, resetting(id: UInt64, keeping: Set<Name>) }

    enum Life {
        /// Names are published once the first reset has ended, successfully or not.
        case starting
        case running
        /// Remaining names are withdrawn.
        case closing
        /// The registrar is closed; no action follows.
        case over
    }

    enum Timer: Hashable {
        /// Next attempt of a name's job.
        case attempt(Name)
        case reset
        /// A publication has waited too long in the queue.
        case patience
        /// The registrar is closed even if work remains.
        case end
    }

    /// Attempts to publish a name before its agent is refused. The agent requests the name again later.
    private static let maxPublishAttempts = 4
    /// How long a publication waits behind others, which may hang, before its agent is refused.
    private static let patience: Milliseconds = 60_000
    private static let firstPause: Milliseconds = 250
    static let firstResetPause: Milliseconds = 1_000
    static let maxPause: Milliseconds = 30_000
    /// How long the gateway waits for withdrawals while it stops.
    private static let lastMilliseconds: Milliseconds = 5_000

    package var traits: Traits
    private let limits: WithdrawalLimits
    /// Those before `firstAction` were already returned by ``popAction()``.
    private var actions: [Action] = []
    private var firstAction = 0
    var deadlines = Deadlines<Timer>()
    var jobs = RegistrarJobs()
    private var running: [UInt64: RegistrarJob] = [:]
    private var runningWithdrawalCount = 0
    private var waiting = WaitingJobs()
    var phase = Phase.working
    /// Requests that arrived while a reset was due or running.
    var held = HeldRequests()
    /// Consecutive ones.
    var failedResets = 0
    /// Names that are published or are to be published.
    var wanted: [Name: PublicExposure] = [:]
    /// Those of `wanted` whose publication succeeded.
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

    // MARK: - Output

    /// Returns the next action, or nil if there are no more. After each event, call this until it returns nil.
    package func popAction() -> Action? {
        guard self.firstAction < self.actions.count else {
            self.actions.removeAll(keepingCapacity: true)
            self.firstAction = 0
            return nil
        }
        defer { self.firstAction += 1 }
        return self.actions[self.firstAction]
    }

    /// When to call `timerFired`; nil for never.
    package var nextDeadline: Milliseconds? { self.deadlines.next }

    package var isFailing: Bool { !self.failures.isEmpty }

    /// The latest failure of an action that has not succeeded since, for the status; nil without one.
    package var failure: String? { self.failures.latest }

    /// The number of pending requests.
    package var pendingCount: Int { self.jobs.all.count + self.held.count }

    func emit(_ action: Action) { self.actions.append(action) }

    func newID() -> UInt64 {
        self.lastID += 1
        return self.lastID
    }

    // MARK: - Names

    /// - Returns: the ticket of the answer. A newer request for the name replaces this one, which is then not answered.
    package func publish(_ exposure: PublicExposure, now: Milliseconds) -> UInt64 {
        let ticket = self.newID()
        self.wanted[exposure.name] = exposure
        self.published.remove(exposure.name)
        self.left.wanted(exposure.name)
        self.request(.publish(exposure, ticket: ticket), now)
        return ticket
    }

    /// The agent has given the name back. Does nothing if its publication was already refused.
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
        // A proxy sends visitors to a port only once its publication has begun.
        if !self.waits(name) { self.leaving.withdrawn(exposure) }
        self.request(.withdraw(exposure), now)
    }

    /// Whether the latest request for a name has not begun.
    private func waits(_ name: Name) -> Bool {
        self.held.contains(name) || self.jobs[name].map { $0.next != nil || $0.attempts == 0 } ?? false
    }

    /// Whether an agent must wait for withdrawals of its former names before it can have another one. An agent may
    /// leave fewer pending withdrawals when less room remains, so a few agents cannot use up all of it.
    package func isFull(for name: Name, of payer: String) -> Bool {
        // A name that must be withdrawn anyway adds nothing.
        guard !self.traits.resetKeepsNames, !self.left.contains(name) else { return false }
        let free = max(self.limits.total - self.left.total, 0)
        return self.left.count(of: payer) >= min(self.limits.perAgent, free)
    }

    /// Whether a public port belonged to a withdrawn name and a proxy may still send that name's visitors there. If
    /// another agent's name got the port, that agent would receive those visitors.
    ///
    /// - Parameter identity: the agent that is asking. Ports of its own former names do not count.
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

    /// Leaves pending withdrawals to one reset, if there are too many and a reset keeps the other names reachable.
    private func abandonWithdrawals(_ now: Milliseconds) {
        // Running ones cannot be cancelled; each ends within ten seconds.
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

    /// Whether no attempt is running.
    var isIdle: Bool { self.running.isEmpty }

    private var hasRoom: Bool { self.running.count < self.traits.maxAtOnce ?? .max }

    /// - Parameter isNext: whether the job was taken from the front of the queue.
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

    /// Starts queued jobs while there are free slots.
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
            // If the name was withdrawn during the publication, the registrar has published a former listener.
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

    /// Gives up a publication. The agent may request the name again.
    private func refuse(
        _ job: RegistrarJob, _ exposure: PublicExposure, _ ticket: UInt64, _ reason: String, _ text: String,
        _ now: Milliseconds
    ) {
        self.emit(.log(.warning, text, exposure))
        self.wanted[exposure.name] = nil
        self.jobs[exposure.name] = nil
        self.emit(.answer(exposure.name, ticket: ticket, failure: reason))
        // A failed attempt may have taken effect in part.
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

    /// Call this when ``nextDeadline`` has passed.
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

    // MARK: - Failures

    /// Records a failure, or that an action works again, and logs it.
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
        // A repeated failure with the same text is logged as an error only once.
        let isNew = self.failures.failed(action, text, isWanted: isWanted)
        self.emit(.log(isNew ? .error : .debug, text, exposure))
    }

    // MARK: - Closing

    /// Closes the registrar after the last withdrawal, or after a few seconds.
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
        // A hanging publication would use up the remaining time.
        for (id, job) in self.running.sorted(by: { $0.key < $1.key }) {
            guard case .publish = job.request, let next = job.next else { continue }
            _ = self.stopRunning(id)
            self.emit(.cancel(id: id))
            self.jobs[job.request.name] = nil
            self.begin(next, now)
        }
        // Before the first reset has ended, nothing was published that must be withdrawn.
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
