internal import Timing
package import Wire

/// What an agent wants to expose.
package struct Wish: Equatable, Sendable {
    package let name: Name
    /// The wanted public port, or 0.
    package let port: UInt16

    package init(name: Name, port: UInt16) {
        self.name = name
        self.port = port
    }
}

/// The names that an agent wants: which of them it has, and when it asks for the others again.
///
/// A link has a number for each name. A name keeps its number from link to link, and no other name gets it as long as
/// there are others: an answer or a stream that is on its way then cannot be taken for another name's.
struct WantedNames: Sendable {
    private struct Entry: Sendable {
        let wish: Wish
        /// Was registered at least once: a name that was ours may come back, whatever is said of it now.
        var wasOurs = false
        /// Reachable now, with what the gateway said of it.
        var grant: Registered?
        var refusal: ErrorCode?
        /// What the user was told of the latest refusal.
        var told: String?
        /// Refusals since the last grant.
        var refusals = 0
        /// When to ask for it; nil: it was asked for, or is not to be had over this link.
        var due: Milliseconds?
    }

    /// Temporary trouble at the gateway, a port in use for instance: after 1 s, doubled each time up to 30 s.
    private static let firstPause: Milliseconds = 1_000
    /// Another agent has the name, or it was taken away: either may change at any time.
    private static let pause: Milliseconds = 30_000
    /// Not allowed: changes only with the gateway's configuration.
    private static let longPause: Milliseconds = 300_000
    /// What a gateway takes of REGISTER and UNREGISTER on a link before it counts glitches (docs/protocol.md).
    private static let registrations: (least: Int, perSecond: Int) = (32, 1)

    private var entries: [UInt16: Entry] = [:]
    /// In the order of the configuration.
    private var order: [UInt16] = []
    private var nextNumber: UInt16 = 0
    /// Exposure numbers that wait for UNREGISTER.
    private var toGiveBack: [UInt16] = []
    private var most = 0
    private var bucket = TokenBucket(burst: 0, perSecond: 0, now: 0)

    init(_ wishes: [Wish]) {
        for wish in wishes { self.add(wish, due: nil) }
    }

    var count: Int { self.order.count }

    var reachableCount: Int { self.entries.values.count { $0.grant != nil } }

    func wish(of number: UInt16) -> Wish? { self.entries[number]?.wish }

    private mutating func add(_ wish: Wish, due: Milliseconds?) {
        while self.entries[self.nextNumber] != nil || self.toGiveBack.contains(self.nextNumber) {
            self.nextNumber &+= 1
        }
        self.entries[self.nextNumber] = Entry(wish: wish, due: due)
        self.order.append(self.nextNumber)
        self.nextNumber &+= 1
    }

    /// A link is up. All names that fit become due; names that were registered before come first.
    ///
    /// - Returns: the names that do not fit.
    mutating func linkBegan(most: Int, now: Milliseconds) -> [(wish: Wish, text: String)] {
        self.linkEnded()
        self.most = most
        self.bucket = TokenBucket(
            burst: max(Self.registrations.least, 2 * most) - 1, perSecond: Self.registrations.perSecond, now: now)
        let ours = self.order.filter { self.entries[$0]?.wasOurs == true }
        let others = self.order.filter { self.entries[$0]?.wasOurs != true }
        for number in (ours + others).prefix(most) { self.entries[number]?.due = now }
        return (ours + others).dropFirst(most).compactMap { number in
            let text = "the gateway allows \(most) names on a link: start another agent for the rest"
            self.refused(number, .tooManyNames, text, now: now)
            return self.wish(of: number).map { ($0, text) }
        }
    }

    mutating func linkEnded() {
        self.toGiveBack = []
        for number in self.order {
            self.entries[number]?.grant = nil
            self.entries[number]?.refusal = nil
            self.entries[number]?.told = nil
            self.entries[number]?.due = nil
        }
    }

    /// Replaces the wanted names: new ones are due at once, removed ones are queued for UNREGISTER.
    mutating func change(to wishes: [Wish], now: Milliseconds) {
        let gone = self.order.filter { number in !wishes.contains { $0 == self.entries[number]?.wish } }
        for number in gone {
            // Registered or requested. Without a link the queue is dropped again.
            if let entry = self.entries[number], entry.grant != nil || entry.due == nil && entry.refusal == nil {
                self.toGiveBack.append(number)
            }
            self.entries[number] = nil
        }
        let kept = self.order.filter { self.entries[$0] != nil }
        self.order = []
        for wish in wishes {
            if let number = kept.first(where: { self.entries[$0]?.wish == wish }) {
                self.order.append(number)
            } else {
                self.add(wish, due: now)
            }
        }
        // Removed names may have made room.
        for number in self.order where self.entries[number]?.refusal == .tooManyNames {
            self.entries[number]?.due = now
        }
    }

    /// Takes the due UNREGISTER numbers, at most as many as the gateway accepts now.
    mutating func dueReturns(now: Milliseconds) -> [UInt16] {
        var numbers: [UInt16] = []
        while let number = self.toGiveBack.first, self.bucket.take(now: now) {
            self.toGiveBack.removeFirst()
            numbers.append(number)
        }
        return numbers
    }

    /// - Returns: whether that is news.
    mutating func granted(_ answer: Registered) -> Bool {
        let number = answer.exposure
        guard self.entries[number]?.grant != answer else { return false }
        self.entries[number]?.grant = answer
        self.entries[number]?.wasOurs = true
        self.entries[number]?.refusal = nil
        self.entries[number]?.refusals = 0
        self.entries[number]?.told = nil
        self.entries[number]?.due = nil
        return true
    }

    /// - Parameter text: why, for the user.
    /// - Returns: whether that is news.
    @discardableResult
    mutating func refused(_ number: UInt16, _ code: ErrorCode, _ text: String, now: Milliseconds) -> Bool {
        guard let entry = self.entries[number] else { return false }
        self.entries[number]?.told = text
        self.entries[number]?.grant = nil
        self.entries[number]?.refusal = code
        self.entries[number]?.refusals += 1
        self.entries[number]?.due = Self.pause(after: code, refusals: entry.refusals).map { now + $0 }
        // The other excess names would get the same answer.
        for other in self.order where code == .tooManyNames && self.entries[other]?.refusal == code {
            self.entries[other]?.due = now + Self.longPause
        }
        return entry.told != text
    }

    /// How long to wait before a name is asked for again; nil: it is not, over this link.
    private static func pause(after code: ErrorCode, refusals: Int) -> Milliseconds? {
        switch code {
        // A newer link of the same agent has it.
        case .replaced, .conflict: nil
        case .withdrawn, .revoked, .nameTaken: self.pause
        case .portTaken: self.growing(refusals)
        default: ExitReason(final: code) == nil ? self.growing(refusals) : self.longPause
        }
    }

    private static func growing(_ refusals: Int) -> Milliseconds {
        min(self.firstPause << Milliseconds(min(refusals, 5)), self.pause)
    }

    /// Whether a name is permanently refused.
    private static func isFinal(_ entry: Entry) -> Bool {
        guard let code = entry.refusal, !entry.wasOurs, code != .portTaken else { return false }
        return ExitReason(final: code) != nil
    }

    var areAllPermanentlyRefused: Bool { self.entries.values.allSatisfy(Self.isFinal) }

    /// The same for one name with `--once`, where a busy port is final as well.
    func isFinalWithOnce(_ wish: Wish, _ code: ErrorCode) -> Bool {
        guard let entry = self.entries.values.first(where: { $0.wish == wish }) else { return false }
        return code == .portTaken && !entry.wasOurs || Self.isFinal(entry)
    }

    /// Takes the due REGISTER frames, at most as many as the gateway accepts now.
    mutating func dueRequests(now: Milliseconds) -> [Register] {
        // A name that is to have another port is given back before it is asked for again.
        guard self.toGiveBack.isEmpty else { return [] }
        var places = self.most - self.entries.values.count { $0.grant != nil || $0.due == nil && $0.refusal == nil }
        var requests: [Register] = []
        let due = self.order.enumerated().compactMap { index, number in
            (self.entries[number]?.due).map { (time: $0, index: index, number: number) }
        }
        .filter { $0.time <= now }
        for (_, _, number) in due.sorted(by: { ($0.time, $0.index) < ($1.time, $1.index) }) {
            guard let entry = self.entries[number] else { continue }
            // One excess name tests whether the gateway accepts more by now.
            let isTrial = requests.isEmpty && entry.refusal == .tooManyNames
            guard places > 0 || isTrial, self.bucket.take(now: now) else { break }
            places -= 1
            self.entries[number]?.due = nil
            self.entries[number]?.refusal = nil
            requests.append(Register(exposure: number, port: entry.wish.port, name: entry.wish.name.text))
        }
        return requests
    }
}
