internal import Timing
internal import Wire

/// What is wanted of a registrar for one name.
enum RegistrarRequest {
    /// Without a ticket no agent waits, as the name was published before: it is tried until it is done.
    case publish(PublicExposure, ticket: UInt64?)
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

/// A request that is not done: waiting for its turn, under way, or until its next attempt.
final class RegistrarJob {
    let request: RegistrarRequest
    var attempts = 0
    /// Whether an attempt is under way.
    var isUnderWay = false
    /// Since when it waits for others to be done.
    var waitingSince: Milliseconds?
    /// What is requested as soon as this is over.
    var next: RegistrarRequest?

    init(_ request: RegistrarRequest) { self.request = request }

    fileprivate var owner: String { self.request.exposure.payer }

    /// Whether its name was published before and is not any more: its visitors are led nowhere until it is done. One that
    /// has failed takes turns with others, which would otherwise wait forever.
    fileprivate var isRepair: Bool {
        if case .publish(_, nil) = self.request { self.attempts == 0 } else { false }
    }
}

/// Jobs that wait for others to be done. Names that must be published again come before all others; agents take turns.
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

    /// Takes out publications whose agents have waited since `time` or longer.
    mutating func removePublications(since time: Milliseconds) -> [RegistrarJob] {
        let late = self.others.removeAll { job in
            guard case .publish(_, .some) = job.request, let since = job.waitingSince else { return false }
            return since <= time
        }
        for job in late { job.waitingSince = nil }
        return late
    }

    /// Since when the publication that has waited longest waits.
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

/// The job of each name, counted by what it is for.
struct RegistrarJobs {
    private(set) var all: [Name: RegistrarJob] = [:]
    /// Those under way included.
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

/// Requests that wait for a reset, one for each name: the newest replaces the older one, whose completion is not called.
struct HeldRequests {
    /// `order` is that of the first request for the name.
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

    /// All of them, in the order in which their names came.
    mutating func take() -> [RegistrarRequest] {
        defer { self = HeldRequests() }
        return self.requests.values.sorted { $0.order < $1.order }.map(\.request)
    }
}
