internal import Modules
internal import Reactor
internal import Wire

/// What is wanted of a registrar for one name.
enum RegistrarWish {
    /// Without a completion the name was published before: it is tried until it is done.
    case publish(PublicExposure, completion: ((_ failure: String?) -> Void)?)
    case withdraw(PublicExposure)

    var exposure: PublicExposure {
        switch self {
        case .publish(let exposure, _), .withdraw(let exposure): exposure
        }
    }

    var name: Name { self.exposure.name }

    /// For a sentence.
    var verb: String {
        switch self {
        case .publish: "publish"
        case .withdraw: "withdraw"
        }
    }

    var action: RegistrarFailures.Action {
        switch self {
        case .publish(let exposure, _): .publish(exposure.name)
        case .withdraw(let exposure): .withdraw(exposure.name)
        }
    }
}

/// A wish on its way: waiting for its turn, under way, or until its next attempt.
final class RegistrarJob {
    let wish: RegistrarWish
    var attempts = 0
    /// When the present attempt began, in nanoseconds of the monotonic clock.
    var began: UInt64 = 0
    var operation: (any Cancellable)?
    var timer: LoopTimer?
    /// Since when it waits for others to be done.
    var waitingSince: UInt64?
    /// What is wanted as soon as this is over.
    var next: RegistrarWish?

    init(_ wish: RegistrarWish) { self.wish = wish }

    /// Ends what is under way; its owner takes it out of ``WaitingJobs``.
    func stop() {
        self.operation?.cancel()
        self.operation = nil
        self.timer?.close()
        self.timer = nil
    }

    fileprivate var owner: String { self.wish.exposure.payer }

    /// Whether its name was published before and is not any more: its visitors are led nowhere until it is done. One that
    /// has failed takes turns with others, which would wait for ever otherwise.
    fileprivate var isRepair: Bool {
        if case .publish(_, nil) = self.wish { self.attempts == 0 } else { false }
    }
}

/// Jobs that wait for others to be done. Names that must be published again come before all others; agents take turns.
struct WaitingJobs {
    private var repairs = TurnQueue<String, RegistrarJob>()
    private var others = TurnQueue<String, RegistrarJob>()

    var isEmpty: Bool { self.repairs.isEmpty && self.others.isEmpty }

    mutating func append(_ job: RegistrarJob, now: UInt64) {
        job.waitingSince = now
        _ = job.isRepair ? self.repairs.append(job, of: job.owner) : self.others.append(job, of: job.owner)
    }

    mutating func popFirst() -> RegistrarJob? {
        let job = self.repairs.popFirst() ?? self.others.popFirst()
        job?.waitingSince = nil
        return job
    }

    mutating func remove(_ job: RegistrarJob) {
        guard job.waitingSince != nil else { return }
        job.waitingSince = nil
        if job.isRepair {
            self.repairs.remove(job, of: job.owner)
        } else {
            self.others.remove(job, of: job.owner)
        }
    }

    mutating func removeWithdrawals() {
        func isWithdrawal(_ job: RegistrarJob) -> Bool { if case .withdraw = job.wish { true } else { false } }
        for job in self.others.removeAll(where: isWithdrawal) { job.waitingSince = nil }
    }

    /// Takes out publications whose agents have waited since `time` or longer.
    mutating func removePublications(since time: UInt64) -> [RegistrarJob] {
        let late = self.others.removeAll { job in
            guard case .publish(_, .some) = job.wish, let since = job.waitingSince else { return false }
            return since <= time
        }
        for job in late { job.waitingSince = nil }
        return late
    }

    mutating func removeAll() { self = WaitingJobs() }
}

/// The job of each name, counted by what it is for.
struct RegistrarJobs {
    private(set) var all: [Name: RegistrarJob] = [:]
    /// Those under way included.
    private(set) var withdrawalCount = 0

    subscript(name: Name) -> RegistrarJob? {
        get { self.all[name] }
        set {
            if case .withdraw = self.all[name]?.wish { self.withdrawalCount -= 1 }
            if case .withdraw = newValue?.wish { self.withdrawalCount += 1 }
            self.all[name] = newValue
        }
    }

    mutating func removeAll() { self = RegistrarJobs() }
}

/// Requests that wait for a reset, one for each name: the newest replaces the older one, whose completion is not called.
struct HeldWishes {
    /// `order` is that of the first request for the name.
    private var wishes: [Name: (wish: RegistrarWish, order: Int)] = [:]
    private var nextOrder = 0

    var names: Set<Name> { Set(self.wishes.keys) }
    var count: Int { self.wishes.count }

    mutating func hold(_ wish: RegistrarWish) {
        self.wishes[wish.name] = (wish, self.wishes[wish.name]?.order ?? self.nextOrder)
        self.nextOrder += 1
    }

    func contains(_ name: Name) -> Bool { self.wishes[name] != nil }

    mutating func remove(_ name: Name) { self.wishes[name] = nil }

    /// All of them, in the order in which their names came.
    mutating func take() -> [RegistrarWish] {
        defer { self = HeldWishes() }
        return self.wishes.values.sorted { $0.order < $1.order }.map(\.wish)
    }
}
