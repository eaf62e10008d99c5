internal import Timing
internal import Wire

/// A request to a registrar, about one name.
enum RegistrarRequest {
    /// A ticket means that an agent waits for the answer. Without one the name was published before, and the request is
    /// retried until it succeeds.
    case publish(PublicExposure, ticket: UInt64?)
    case withdraw(PublicExposure)

    var exposure: PublicExposure {
        switch self {
        case .publish(let exposure, _), .withdraw(let exposure): exposure
        }
    }

    var name: Name { self.exposure.name }

    /// For log lines.
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

/// A request that is not done: it waits for its turn, an attempt is running, or it waits for the next attempt.
final class RegistrarJob {
    let request: RegistrarRequest
    var attempts = 0
    /// Whether an attempt is running.
    var isUnderWay = false
    /// When it was queued behind other jobs; nil if it is not queued.
    var waitingSince: Milliseconds?
    /// The request to start as soon as this job ends.
    var next: RegistrarRequest?

    init(_ request: RegistrarRequest) { self.request = request }

    fileprivate var owner: String { self.request.exposure.payer }

    /// Whether the name was published and has been lost: its visitors reach nothing until it is published again. After
    /// a failed attempt the job takes its turn with the others, which would otherwise wait forever.
    fileprivate var isRepair: Bool {
        if case .publish(_, nil) = self.request { self.attempts == 0 } else { false }
    }
}

/// Jobs that wait for a free slot. Lost names, which must be published again, come first. Agents take turns.
struct WaitingJobs {
    private var repairs = TurnQueue<String, RegistrarJob>()
    private var others = TurnQueue<String, RegistrarJob>()

    var isEmpty: Bool { self.repairs.isEmpty && self.others.isEmpty }

    mutating func append(_ job: RegistrarJob, now: Milliseconds) {
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
        func isWithdrawal(_ job: RegistrarJob) -> Bool { if case .withdraw = job.request { true } else { false } }
        for job in self.others.removeAll(where: isWithdrawal) { job.waitingSince = nil }
    }

    /// Removes publications that agents have waited for since `time` or longer.
    mutating func removePublications(since time: Milliseconds) -> [RegistrarJob] {
        let late = self.others.removeAll { job in
            guard case .publish(_, .some) = job.request, let since = job.waitingSince else { return false }
            return since <= time
        }
        for job in late { job.waitingSince = nil }
        return late
    }

    /// When the publication that has waited longest was queued.
    var oldestPublication: Milliseconds? {
        var oldest: Milliseconds?
        self.others.forEach { job in
            guard case .publish(_, .some) = job.request, let since = job.waitingSince else { return }
            oldest = min(oldest ?? since, since)
        }
        return oldest
    }

    mutating func removeAll() { self = WaitingJobs() }
}

/// The job of each name, with a count of the withdrawals.
struct RegistrarJobs {
    private(set) var all: [Name: RegistrarJob] = [:]
    /// Including running ones.
    private(set) var withdrawalCount = 0

    subscript(name: Name) -> RegistrarJob? {
        get { self.all[name] }
        set {
            if case .withdraw = self.all[name]?.request { self.withdrawalCount -= 1 }
            if case .withdraw = newValue?.request { self.withdrawalCount += 1 }
            self.all[name] = newValue
        }
    }

    mutating func removeAll() { self = RegistrarJobs() }
}

/// Requests held until a reset has ended, one per name. A newer request replaces an older one, which gets no answer.
struct HeldRequests {
    /// `order` is the position of the first request for the name.
    private var requests: [Name: (request: RegistrarRequest, order: Int)] = [:]
    private var nextOrder = 0

    var names: Set<Name> { Set(self.requests.keys) }
    var count: Int { self.requests.count }

    mutating func hold(_ request: RegistrarRequest) {
        self.requests[request.name] = (request, self.requests[request.name]?.order ?? self.nextOrder)
        self.nextOrder += 1
    }

    func contains(_ name: Name) -> Bool { self.requests[name] != nil }

    mutating func remove(_ name: Name) { self.requests[name] = nil }

    /// Removes and returns all requests, in the order in which their names were first requested.
    mutating func take() -> [RegistrarRequest] {
        defer { self = HeldRequests() }
        return self.requests.values.sorted { $0.order < $1.order }.map(\.request)
    }
}
