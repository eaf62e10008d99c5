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

    func stop() {
        self.operation?.cancel()
        self.operation = nil
        self.timer?.close()
        self.timer = nil
        self.waitingSince = nil
    }
}

/// The job of each name, counted by what it is for.
struct RegistrarJobs {
    private(set) var all: [Name: RegistrarJob] = [:]
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
    private var wishes: [Name: RegistrarWish] = [:]
    /// Of the first request for each name.
    private var order: [Name] = []

    var names: Set<Name> { Set(self.order) }
    var count: Int { self.order.count }

    mutating func hold(_ wish: RegistrarWish) {
        if self.wishes.updateValue(wish, forKey: wish.name) == nil { self.order.append(wish.name) }
    }

    /// All of them, in the order in which their names came.
    mutating func take() -> [RegistrarWish] {
        defer { self = HeldWishes() }
        return self.order.compactMap { self.wishes[$0] }
    }
}
