internal import Control
internal import Journal
internal import Logging
internal import Metrics
internal import Modules
internal import Reactor
internal import Wire

/// Has one registrar do what is wanted, name by name and in order, and tries again what fails.
///
/// ```
///            publish                    withdraw
///   (none) ───────────► publishing ───────────────► withdrawing ──► (none)
///                         │    ▲ again, a few times    │    ▲ again, until it is done
///                         └────┘                       └────┘
/// ```
/// A wish that comes while the other is under way takes its place: a publication is called off at once, a withdrawal
/// is waited for.
final class RegistrarDriver {
    private enum Wish {
        case publish(PublicExposure, completion: (_ failure: String?) -> Void)
        case withdraw(PublicExposure)
    }

    private final class Job {
        let wish: Wish
        var attempts = 0
        /// When the present attempt began, in nanoseconds of the monotonic clock.
        var began: UInt64 = 0
        var operation: (any Cancellable)?
        var timer: LoopTimer?
        /// What is wanted as soon as this is over.
        var next: Wish?

        init(_ wish: Wish) { self.wish = wish }

        func stop() {
            self.operation?.cancel()
            self.operation = nil
            self.timer?.close()
            self.timer = nil
        }
    }

    /// Attempts to publish a name before its agent is told that it cannot be had now; it asks again by itself.
    private static let publishAttempts = 4
    private static let firstPause: UInt64 = 250
    private static let mostPause: UInt64 = 30_000
    /// How long the end of the gateway waits for withdrawals.
    private static let lastMilliseconds: UInt64 = 5_000

    private let loop: EventLoop
    private let registrar: any Registrar
    private let logger: Logger
    private(set) var figures = RegistrarFigures()
    private var jobs: [Name: Job] = [:]
    /// Wishes that came before the registrar was reset.
    private var early: [Wish]? = []
    private var resetting: (any Cancellable)?
    private var lastFailure: String?
    private var lastTimer: LoopTimer?
    private var isClosing = false

    init(loop: EventLoop, registrar: any Registrar, logger: Logger) {
        self.loop = loop
        self.registrar = registrar
        self.logger = logger
    }

    var label: String { self.registrar.label }

    /// Whether the last action failed.
    var isFailing: Bool { self.lastFailure != nil }

    func start() {
        var hasAnswer = false
        let operation = DeadlinedOperation(
            loop: self.loop, milliseconds: GatewayServer.moduleDeadline, late: .failure(Self.late),
            start: { self.registrar.reset(completion: $0) },
            completion: { [weak self] result in
                hasAnswer = true
                self?.wasReset(result)
            })
        if !hasAnswer { self.resetting = operation }
    }

    private static let late = RegistrarError(reason: "did not answer in time")

    private func wasReset(_ result: Result<Void, RegistrarError>) {
        self.resetting = nil
        self.note(result, "clean up after a former run")
        let wishes = self.early ?? []
        self.early = nil
        for wish in wishes { self.want(wish) }
    }

    /// `completion` is called once, unless the name is withdrawn before.
    func publish(_ exposure: PublicExposure, completion: @escaping (_ failure: String?) -> Void) {
        self.want(.publish(exposure, completion: completion))
    }

    func withdraw(_ exposure: PublicExposure) { self.want(.withdraw(exposure)) }

    private func want(_ wish: Wish) {
        guard self.early == nil else {
            self.early?.append(wish)
            return
        }
        let name = Self.name(of: wish)
        guard let job = self.jobs[name] else { return self.begin(wish) }
        switch job.wish {
        case .withdraw where job.timer == nil: job.next = wish
        case .publish, .withdraw:
            job.stop()
            self.begin(wish)
        }
    }

    private static func exposure(of wish: Wish) -> PublicExposure {
        switch wish {
        case .publish(let exposure, _), .withdraw(let exposure): exposure
        }
    }

    private static func name(of wish: Wish) -> Name { self.exposure(of: wish).name }

    private func about(_ exposure: PublicExposure? = nil) -> Logger.Metadata {
        .about([.registrar: self.registrar.label, .name: exposure?.name, .agent: exposure?.identity])
    }

    private func begin(_ wish: Wish) {
        let job = Job(wish)
        self.jobs[Self.name(of: wish)] = job
        self.attempt(job)
    }

    private func attempt(_ job: Job) {
        job.attempts += 1
        job.began = EventLoop.nanoseconds
        job.timer?.close()
        job.timer = nil
        var hasAnswer = false
        let operation = DeadlinedOperation(
            loop: self.loop, milliseconds: GatewayServer.moduleDeadline, late: .failure(Self.late),
            start: { completion in
                switch job.wish {
                case .publish(let exposure, _): self.registrar.publish(exposure, completion: completion)
                case .withdraw(let exposure): self.registrar.withdraw(exposure, completion: completion)
                }
            },
            completion: { [weak self] result in
                hasAnswer = true
                job.operation = nil
                self?.answered(job, result)
            })
        if !hasAnswer { job.operation = operation }
    }

    private func answered(_ job: Job, _ result: Result<Void, RegistrarError>) {
        let name = Self.name(of: job.wish)
        self.figures.duration.observe(nanoseconds: EventLoop.nanoseconds &- job.began)
        self.note(result, "\(Self.verb(job.wish)) '\(name)'", Self.exposure(of: job.wish))
        if let next = job.next {
            self.jobs[name] = nil
            return self.begin(next)
        }
        switch (job.wish, result) {
        case (.publish(_, let completion), .success):
            self.finish(job)
            completion(nil)
        case (.withdraw, .success): self.finish(job)
        case (.publish(let exposure, let completion), .failure(let error)) where job.attempts >= Self.publishAttempts:
            self.logger.warning(
                "'\(name)' cannot be published by the registrar \(self.registrar.label) now: \(error.reason)",
                metadata: self.about(exposure))
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

    private static func verb(_ wish: Wish) -> String {
        switch wish {
        case .publish: "publish"
        case .withdraw: "withdraw"
        }
    }

    private func finish(_ job: Job) {
        self.jobs[Self.name(of: job.wish)] = nil
        self.closeIfDone()
    }

    /// Says when it begins to fail and when it works again.
    private func note(_ result: Result<Void, RegistrarError>, _ what: String, _ exposure: PublicExposure? = nil) {
        switch result {
        case .success:
            if self.lastFailure != nil {
                self.logger.notice("the registrar \(self.registrar.label) works again", metadata: self.about())
            }
            self.lastFailure = nil
        case .failure(let error):
            self.figures.failures.add()
            let text = "the registrar \(self.registrar.label) cannot \(what): \(error.reason)"
            // What fails again and again in the same way is said once.
            let level = text == self.lastFailure ? Logger.Level.debug : .error
            self.logger.log(level: level, "\(text)", metadata: self.about(exposure))
            self.lastFailure = text
        }
    }

    var report: GatewayReport.Registrar {
        GatewayReport.Registrar(
            name: self.registrar.label, failure: self.lastFailure, pending: self.jobs.count + (self.early?.count ?? 0))
    }

    // MARK: - The end

    /// Closes the registrar when the last withdrawal is done, or after a while.
    func close() {
        guard !self.isClosing else { return }
        self.isClosing = true
        self.resetting?.cancel()
        self.resetting = nil
        self.early = nil
        let timer = LoopTimer(loop: self.loop) { [weak self] in
            guard let self else { return }
            self.logger.error(
                "the registrar \(self.registrar.label) is left with names that are gone", metadata: self.about())
            self.jobs.values.forEach { $0.stop() }
            self.jobs = [:]
            self.closeIfDone()
        }
        timer.start(after: Self.lastMilliseconds)
        self.lastTimer = timer
        self.closeIfDone()
    }

    private func closeIfDone() {
        guard self.jobs.isEmpty, let timer = self.lastTimer else { return }
        timer.close()
        self.lastTimer = nil
        self.registrar.close()
    }
}
